import { isObject } from '../../../providers/provider.ts';
import { hasErrorReason } from './response-shape.ts';

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
