import type { AppError } from '../../../lib/errors.ts';

/** An error in the shape that Anthropic's SDKs parse. */
export interface AnthropicError {
  type: 'error';
  error: { type: string; message: string };
  request_id: string;
}

/** Converts an error to Anthropic's shape (https://platform.claude.com/docs/en/api/errors). It has no member for a code. */
export function toAnthropicError(error: AppError, requestId: string): AnthropicError {
  return {
    type: 'error',
    error: { type: toErrorType(error.status), message: error.detail },
    request_id: requestId,
  };
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
