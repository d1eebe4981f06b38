import { isObject } from '../../../providers/provider.ts';
import type { StreamProgress } from '../../surface.ts';

/** The events of a stream (https://platform.claude.com/docs/en/build-with-claude/streaming), each with its own member. */
const EVENT_SHAPES: Readonly<Record<string, (event: Record<string, unknown>) => boolean>> = {
  message_start: ({ message }) => isMessage(message),
  content_block_start: ({ content_block: block }) => isObject(block),
  content_block_delta: ({ delta }) => isObject(delta),
  content_block_stop: ({ index }) => typeof index === 'number',
  message_delta: ({ delta }) => isObject(delta),
  message_stop: () => true,
  ping: () => true,
};

/**
 * True for a message or an event of one. From a public address, anything with a type is one, since Anthropic adds types
 * of events. Another service at a private address must not match by chance.
 */
export function isMessagesResponse(value: unknown, isPublic: boolean): boolean {
  if (!isObject(value)) return false;
  const { type } = value;
  if (typeof type !== 'string' || type === '') return false;
  if (isPublic || isMessage(value)) return true;
  return Object.hasOwn(EVENT_SHAPES, type) && EVENT_SHAPES[type]?.(value) === true;
}

function isMessage(value: unknown): boolean {
  return isObject(value) && value['type'] === 'message' && Array.isArray(value['content']);
}

/** True for a count of tokens (https://platform.claude.com/docs/en/api/messages-count-tokens). */
export function isTokenCount(value: unknown): boolean {
  return isObject(value) && typeof value['input_tokens'] === 'number';
}

/** True for a body or event that reports an error, regardless of its status, also in the shape of other protocols. */
export function hasMessagesError(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasMessagesError);
  return (
    isObject(value) && (value['type'] === 'error' || value['object'] === 'error' || Boolean(value['error']))
  );
}

/** A stream is finished with `message_stop`. The reason to stop comes before it, but so can an error. */
export function prepareMessagesProgress(): () => StreamProgress {
  return () => {
    let isFinished = false;
    return {
      add(value) {
        isFinished ||= isObject(value) && value['type'] === 'message_stop';
      },
      isFinished: () => isFinished,
    };
  };
}
