import { toSseEvent } from '../../../http/sse.ts';
import type { AppError } from '../../../lib/errors.ts';
import { findProtocolError, shortenMessage } from '../../../providers/protocol-error.ts';
import { isObject } from '../../../providers/provider.ts';

/** An error in the shape that Anthropic's SDKs parse. */
export interface AnthropicError {
  type: 'error';
  error: { type: string; message: string } & Record<string, unknown>;
  request_id?: string;
}

/**
 * Converts an error to Anthropic's shape (https://platform.claude.com/docs/en/api/errors). It has no member for a code;
 * extra members are added to `error`.
 */
export function toAnthropicError(error: AppError, requestId: string): AnthropicError {
  return {
    type: 'error',
    error: { type: toErrorType(error.status), message: error.detail, ...error.extra },
    request_id: requestId,
  };
}

/** The event that ends a stream which has already begun. Anthropic's SDKs throw its data as an error. */
export function toAnthropicErrorEvent(body: unknown): string {
  return toSseEvent(JSON.stringify(isAnthropicError(body) ? body : toKnownError(body)), 'error');
}

/**
 * Finds the error of an upstream, in Anthropic's shape or in one of those that servers of OpenAI's protocols send.
 * @returns texts of bounded length; undefined when the value has another shape.
 */
export function findAnthropicError(value: unknown): AnthropicError | undefined {
  const found = findProtocolError(value)?.error;
  if (found === undefined) return undefined;
  return { type: 'error', error: { type: found.type ?? 'api_error', message: found.message } };
}

/** The body of an upstream's error that has none that may be shown. */
export function toAnthropicUpstreamError(message: string): AnthropicError {
  return { type: 'error', error: { type: 'api_error', message } };
}

function toKnownError(body: unknown): AnthropicError {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return findAnthropicError(body) ?? toAnthropicUpstreamError(shortenMessage(text));
}

function isAnthropicError(value: unknown): boolean {
  return isObject(value) && value['type'] === 'error' && isObject(value['error']);
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  401: 'authentication_error',
  402: 'billing_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  504: 'timeout_error',
};

function toErrorType(status: number): string {
  return ERROR_TYPES[status] ?? (status >= 500 ? 'api_error' : 'invalid_request_error');
}
