import { toSseEvent } from '../../../http/sse.ts';
import { findProtocolError, shortenMessage, type ProtocolError } from '../../../providers/protocol-error.ts';
import { isObject } from '../../../providers/provider.ts';
import { toUpstreamError } from '../../openai-errors.ts';

/** The error of a body, of an `error` event (flat or nested) or of a failed response. */
export function findResponsesError(value: unknown): ProtocolError | undefined {
  return findProtocolError(isObject(value) && isObject(value['response']) ? value['response'] : value);
}

/**
 * The events that end a stream which has already begun. OpenAI sends `error`, for which its SDKs throw an error, and then
 * `response.failed`, the only one of the two that Codex reads. An upstream's `response.failed` is sent as it is.
 * @param body of an error response, or an error event of the upstream.
 */
export function toResponsesErrorEvent(body: unknown): string {
  if (isObject(body) && body['type'] === 'response.failed') return toTypedEvent('response.failed', body);
  const error = findNestedError(body);
  const { message, code = null, param = null } = error;
  const sequence = isObject(body) ? body['sequence_number'] : undefined;
  const number = typeof sequence === 'number' ? sequence : 0;
  const response = { object: 'response', status: 'failed', error: { code, message } };
  return (
    toTypedEvent('error', { sequence_number: number, code, message, param, error }) +
    toTypedEvent('response.failed', { sequence_number: number + 1, response })
  );
}

function findNestedError(body: unknown): Record<string, unknown> {
  if (isObject(body) && isObject(body['error'])) return body['error'];
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return (findResponsesError(body) ?? toUpstreamError(shortenMessage(text))).error;
}

function toTypedEvent(type: string, members: Record<string, unknown>): string {
  return toSseEvent(JSON.stringify({ type, ...members }), type);
}
