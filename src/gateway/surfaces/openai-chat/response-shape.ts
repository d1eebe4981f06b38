import { isObject } from '../../../providers/provider.ts';

/*
 * The shape that a response from a private address must have to be sent to the client. A user can point a key at any
 * service there, so the shape must not match another service's response by chance. It includes the variants that real
 * servers send: Azure begins a stream with `choices: []` and `object: ""`, others omit `delta` or send null.
 */

/** True for a chat completion or a chunk of one. From a public address, any object with `choices` is one. */
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
  const { object, type, choices } = value;
  if (object === 'error' || type === 'error' || hasErrorMember(value)) return true;
  if (!Array.isArray(choices)) return false;
  if (choices.length === 0) return hasMember(value, (name) => ERROR_TEXTS.has(name));
  return choices.some((choice) => isObject(choice) && (hasErrorMember(choice) || hasErrorReason(choice)));
}

/** Names of an error's text in an object that has no other sign of an error. */
const ERROR_TEXTS: ReadonlySet<string> = new Set(['message', 'detail', 'msg']);

/** True for a member such as `error`, `errors` or `error_message`. */
function hasErrorMember(value: Record<string, unknown>): boolean {
  return hasMember(value, (name) => name.startsWith('error'));
}

/** True for a choice that ended with an error (OpenRouter). */
export function hasErrorReason({ finish_reason: reason }: Record<string, unknown>): boolean {
  return typeof reason === 'string' && reason.trim().toLowerCase() === 'error';
}

/** True when a member with content has such a name in lower case. */
function hasMember(value: Record<string, unknown>, isMatch: (name: string) => boolean): boolean {
  return Object.entries(value).some(
    ([name, member]) =>
      isMatch(name.toLowerCase()) && (Array.isArray(member) ? member.length > 0 : Boolean(member)),
  );
}
