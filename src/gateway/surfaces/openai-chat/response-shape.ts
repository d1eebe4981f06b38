import {
  hasErrorMember,
  hasErrorReason,
  hasErrorText,
  isErrorObject,
} from '../../../providers/protocol-error.ts';
import { isObject } from '../../../providers/provider.ts';
import type { StreamProgress } from '../../surface.ts';

/**
 * True for a chat completion or a chunk of one. From a public address, any object with `choices` is one. A user can point
 * a key at any service at a private address, so another service's response must not match by chance. The variants that
 * real servers send match: Azure begins a stream with `choices: []` and `object: ""`, others omit `delta` or send null.
 */
export function isChatResponse(value: unknown, isPublic: boolean): boolean {
  if (!isObject(value) || !Array.isArray(value['choices'])) return false;
  if (isPublic) return true;
  const choices: unknown[] = value['choices'];
  return choices.length > 0 ? choices.every(isChoice) : isChunkWithoutChoices(value);
}

function isChoice(choice: unknown): boolean {
  if (!isObject(choice)) return false;
  const { message, delta } = choice;
  if (isObject(message) || isObject(delta) || delta === null) return true;
  return message === undefined && delta === undefined && typeof choice['index'] === 'number';
}

/** It reports usage at the end of a stream, or the result of a content filter at its start. */
function isChunkWithoutChoices({ object, id, usage }: Record<string, unknown>): boolean {
  if (typeof object === 'string' && object !== '') return object.startsWith('chat.completion');
  return typeof id === 'string' || isObject(usage);
}

/**
 * True for a body or event that reports an error, regardless of its status: an `error` at the top or in a choice
 * (OpenRouter), a choice that ended with an error, an object that names itself an error (vLLM, Anthropic), or `choices:
 * []` beside the text of an error. Some providers send `"error": null` in every chunk.
 */
export function hasChatError(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasChatError);
  if (!isObject(value)) return false;
  if (isErrorObject(value)) return true;
  const { choices } = value;
  if (!Array.isArray(choices)) return false;
  if (choices.length === 0) return hasErrorText(value);
  return choices.some((choice) => isObject(choice) && (hasErrorMember(choice) || hasErrorReason(choice)));
}

/** OpenAI accepts `n` up to 128. More choices are not counted, so that an upstream cannot make the sets grow. */
const MAX_COUNTED_CHOICES = 128;

/**
 * A stream is finished when as many choices as the client asked for, and every choice that has begun, have their finish
 * reason. Some servers begin a choice only after the one before it.
 */
export function prepareChatProgress({ n }: Readonly<Record<string, unknown>>): () => StreamProgress {
  const choiceCount = typeof n === 'number' ? n : 1;
  const expectedCount = Math.min(Math.max(choiceCount, 1), MAX_COUNTED_CHOICES);
  return () => createChatProgress(expectedCount);
}

function createChatProgress(expectedCount: number): StreamProgress {
  const begun = new Set<unknown>();
  const finished = new Set<unknown>();
  return {
    add(value) {
      const choices = isObject(value) && Array.isArray(value['choices']) ? value['choices'] : [];
      for (const choice of choices.filter(isObject)) {
        const { index = 0, finish_reason: reason } = choice;
        if (begun.size < MAX_COUNTED_CHOICES) begun.add(index);
        // Some servers send an empty reason until the last chunk.
        if (typeof reason === 'string' && reason !== '' && begun.has(index)) finished.add(index);
      }
    },
    isFinished: () => finished.size >= expectedCount && finished.size === begun.size,
  };
}
