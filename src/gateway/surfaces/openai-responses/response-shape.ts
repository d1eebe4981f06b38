import { isErrorObject } from '../../../providers/protocol-error.ts';
import { isObject } from '../../../providers/provider.ts';
import type { StreamProgress } from '../../surface.ts';

const EVENT_TYPE = /^response\.[a-z_.]+$/;

/**
 * True for a response, an event of one, a deleted response, or a list of input items. From a public address, any object
 * with `object: "response"` or a `type` is one. A private address must match the shape more closely.
 */
export function isResponsesResponse(value: unknown, isPublic: boolean): boolean {
  if (!isObject(value)) return false;
  const { object, type, data } = value;
  if (object === 'list' && Array.isArray(data)) return data.every(isItem);
  if (typeof object === 'string' && /^response(\.deleted)?$/.test(object))
    return isPublic || (typeof value['id'] === 'string' && ('output' in value || 'deleted' in value));
  if (typeof type !== 'string') return false;
  return isPublic || (EVENT_TYPE.test(type) && typeof value['sequence_number'] === 'number');
}

function isItem(value: unknown): boolean {
  return isObject(value) && typeof value['type'] === 'string';
}

/**
 * True for a body or event that reports an error, regardless of its status: an `error` at the top or in the response of
 * an event, the event `error`, or a response that has failed. Successful responses have `"error": null`.
 */
export function hasResponsesError(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasResponsesError);
  if (!isObject(value)) return false;
  const { type, status, response } = value;
  if (isErrorObject(value) || type === 'response.failed') return true;
  if (value['object'] === 'response' && status === 'failed') return true;
  return isObject(response) && hasResponsesError(response);
}

/** Events that end a stream. Their response is complete, or says why it is not. */
const LAST_EVENTS: ReadonlySet<unknown> = new Set([
  ...['response.completed', 'response.incomplete', 'response.failed', 'response.cancelled'],
]);

/** A stream is finished with one of its last events. */
export function createResponsesProgress(): StreamProgress {
  let isFinished = false;
  return {
    add(value) {
      isFinished ||= isObject(value) && LAST_EVENTS.has(value['type']);
    },
    isFinished: () => isFinished,
  };
}

/** The id of a response, or of the one that an event is about. */
export function findResponseId(value: unknown): string | undefined {
  if (!isObject(value)) return undefined;
  const response = isObject(value['response']) ? value['response'] : value;
  const { object, id } = response;
  return object === 'response' && typeof id === 'string' ? id : undefined;
}
