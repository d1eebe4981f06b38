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
function hasErrorReason({ finish_reason: reason }: Record<string, unknown>): boolean {
  return typeof reason === 'string' && reason.trim().toLowerCase() === 'error';
}

/** True when a member with content has such a name in lower case. */
function hasMember(value: Record<string, unknown>, isMatch: (name: string) => boolean): boolean {
  return Object.entries(value).some(
    ([name, member]) =>
      isMatch(name.toLowerCase()) && (Array.isArray(member) ? member.length > 0 : Boolean(member)),
  );
}

/** An error of an upstream, reduced to the members of the protocol. */
export interface ProtocolError {
  error: { message: string; type: string | null; param: string | null; code: string | number | null };
}

const MAX_MESSAGE_LENGTH = 4_096;
const MAX_MEMBER_LENGTH = 256;

/**
 * Finds the error in any of the shapes that servers of the protocol send: `{error: {message}}`, `{error: "text"}` (Ollama,
 * LM Studio), `{message}` (vLLM), `{detail}` as a text or a list (FastAPI), `[{error}]` (Gemini), and `error` in a choice
 * (OpenRouter).
 * @returns texts of bounded length; undefined when the value has another shape.
 */
export function findProtocolError(value: unknown): ProtocolError | undefined {
  if (Array.isArray(value))
    return isObject(value[0]) && value[0]['error'] ? findProtocolError(value[0]) : undefined;
  if (!isObject(value)) return undefined;
  const { error, choices, message, detail } = value;
  if (isObject(error)) return toProtocolError(error['message'], error);
  if (typeof error === 'string' && error !== '') return toProtocolError(error, value);
  if (Array.isArray(choices)) return findErrorInChoices(choices.filter(isObject));
  return toProtocolError(message, value) ?? toProtocolError(toDetailText(detail), {});
}

function findErrorInChoices(choices: readonly Record<string, unknown>[]): ProtocolError | undefined {
  const failed = choices.find((choice) => choice['error']);
  if (failed !== undefined) return findProtocolError(failed);
  const message = 'The provider ended the answer with the finish reason "error".';
  return choices.some(hasErrorReason) ? toProtocolError(message, {}) : undefined;
}

function toProtocolError(
  message: unknown,
  { type, param, code }: Record<string, unknown>,
): ProtocolError | undefined {
  if (typeof message !== 'string' || message === '') return undefined;
  return {
    error: {
      message: shortenMessage(message),
      type: typeof type === 'string' ? shorten(type, MAX_MEMBER_LENGTH) : null,
      param: typeof param === 'string' ? shorten(param, MAX_MEMBER_LENGTH) : null,
      code:
        typeof code === 'string' ? shorten(code, MAX_MEMBER_LENGTH) : typeof code === 'number' ? code : null,
    },
  };
}

const MAX_LOC_PARTS = 16;

/** FastAPI lists what is wrong with a request as `{loc: [...], msg}`. */
function toDetailText(detail: unknown): unknown {
  if (!Array.isArray(detail)) return detail;
  return detail
    .filter(isObject)
    .filter(({ msg }) => typeof msg === 'string')
    .map(({ loc, msg }) => (Array.isArray(loc) ? `${toPath(loc)}: ${String(msg)}` : String(msg)))
    .join('; ');
}

/** The text of other values than strings and numbers could throw, or be long. */
function toPath(loc: readonly unknown[]): string {
  return loc
    .slice(0, MAX_LOC_PARTS)
    .filter((part) => typeof part === 'string' || typeof part === 'number')
    .join('.');
}

/** A message of bounded length. */
export function shortenMessage(text: string): string {
  return shorten(text, MAX_MESSAGE_LENGTH);
}

function shorten(text: string, maxLength: number): string {
  return text.length > maxLength ? `${text.slice(0, maxLength - 1)}…` : text;
}

/** OpenAI accepts `n` up to 128. More choices are not counted, so that an upstream cannot make the sets grow. */
const MAX_CHOICES = 128;

/**
 * A stream is finished when as many choices as the client asked for, and every choice that has begun, have their finish
 * reason. Some servers begin a choice only after the one before it.
 */
export function prepareChatProgress({ n }: Readonly<Record<string, unknown>>): () => StreamProgress {
  const choiceCount = typeof n === 'number' ? n : 1;
  const expectedCount = Math.min(Math.max(choiceCount, 1), MAX_CHOICES);
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
        if (begun.size < MAX_CHOICES) begun.add(index);
        // Some servers send an empty reason until the last chunk.
        if (typeof reason === 'string' && reason !== '' && begun.has(index)) finished.add(index);
      }
    },
    isFinished: () => finished.size >= expectedCount && finished.size === begun.size,
  };
}
