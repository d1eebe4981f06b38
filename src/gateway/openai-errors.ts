import { toSseEvent } from '../http/sse.ts';
import type { AppError } from '../lib/errors.ts';
import { findProtocolError, shortenMessage } from '../providers/protocol-error.ts';
import { isObject } from '../providers/provider.ts';

/** An error in the shape that OpenAI's SDKs parse. */
export interface OpenAiError {
  error: { message: string; type: string; param: string | null; code: string | null } & Record<
    string,
    unknown
  >;
}

/** Converts an error to OpenAI's shape: the code is `error.code`, extra members are added to `error`. */
export function toOpenAiError(error: AppError, requestId: string): OpenAiError {
  return {
    error: {
      message: error.detail,
      type: toErrorType(error.status),
      param: error.errors?.[0]?.path ?? null,
      code: error.code,
      request_id: requestId,
      ...error.extra,
    },
  };
}

/**
 * The error event that ends a stream which has already begun. OpenAI's SDKs throw an error for an event with a member
 * `error`, read `message`, `code`, `param` and `type` of it, and do not send the request again.
 */
export function toOpenAiErrorEvent(body: unknown): string {
  if (isObject(body) && isObject(body['error'])) return toSseEvent(JSON.stringify(body));
  const error = findProtocolError(body) ?? toUpstreamError(shortenMessage(JSON.stringify(body)));
  return toSseEvent(JSON.stringify(error));
}

/** The body of an upstream's error that has none that may be shown. */
export function toUpstreamError(message: string) {
  return { error: { message, type: 'upstream_error', param: null, code: null } };
}

function toErrorType(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}
