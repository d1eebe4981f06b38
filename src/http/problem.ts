import { STATUS_CODES } from 'node:http';
import type { AppError } from '../lib/errors.ts';

/** An error of the REST API as RFC 9457 has it, with our code; extra members are in wire spelling. */
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
