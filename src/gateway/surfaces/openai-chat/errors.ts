import { toSseEvent } from '../../../http/sse.ts';
import type { AppError } from '../../../lib/errors.ts';
import type { RefusalCause } from '../../surface.ts';
import { isObject } from '../../../providers/provider.ts';
import { findProtocolError, shortenMessage } from './response-shape.ts';

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

/** Codes and types that say that the key itself is refused. Compared with `_` and `-` as blanks. */
const KEY_CODE =
  /^((invalid|incorrect|expired|revoked|disabled|deactivated) (api )?(key|token)|(api )?(key|token) (invalid|expired|revoked|disabled|deactivated)|token not found in db|(account|user) (deactivated|disabled|deleted|suspended))$/i;
const KEY_TEXT =
  /\b(incorrect|invalid|expired|revoked) (x )?api (key|token)\b|\b(key|token|account)\b[^.]{0,80}\b(revoked|deactivated|expired)\b/i;
/**
 * Words of a refusal that another request with the same key would not get: an organization or a project that the client
 * named (OpenAI), a scope or a permission that the key lacks, a model that it may not use (LiteLLM).
 */
const REQUEST_TEXT = /\b(organi[sz]ation|project|scopes?|permissions?|models?)\b/i;

/** What a 401 says of its cause, in the codes and the text of its error. */
export function findRefusalCause(value: unknown): RefusalCause | undefined {
  const error = findProtocolError(value)?.error;
  const toWords = (member: unknown) => (typeof member === 'string' ? member.replaceAll(/[_-]/g, ' ') : '');
  const codes = [toWords(error?.code), toWords(error?.type)];
  if (codes.some((code) => KEY_CODE.test(code))) return 'key';
  const text = [...codes, toWords(error?.message)].join(' ');
  if (KEY_TEXT.test(text)) return 'probably_key';
  return REQUEST_TEXT.test(text) ? 'request' : undefined;
}

function toErrorType(status: number): string {
  if (status === 401) return 'authentication_error';
  if (status === 403) return 'permission_error';
  if (status === 429) return 'rate_limit_error';
  return status >= 500 ? 'server_error' : 'invalid_request_error';
}
