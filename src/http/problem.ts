import { STATUS_CODES } from 'node:http';
import type { AppError } from '../lib/errors.ts';

/** Converts an error to problem details (RFC 9457) with `code`, `request_id` and the extra members. */
export function toProblem(error: AppError, requestId: string): Record<string, unknown> {
  return {
    type: 'about:blank',
    title: STATUS_CODES[error.status] ?? 'Error',
    status: error.status,
    detail: error.detail,
    code: error.code,
    request_id: requestId,
    ...(error.errors === undefined ? {} : { errors: error.errors }),
    ...error.extra,
  };
}
