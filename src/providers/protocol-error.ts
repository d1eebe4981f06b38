import { isObject } from './provider.ts';

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

/** True for a choice that ended with an error (OpenRouter). */
export function hasErrorReason({ finish_reason: reason }: Record<string, unknown>): boolean {
  return typeof reason === 'string' && reason.trim().toLowerCase() === 'error';
}

/** True for an object that names itself an error (vLLM, Anthropic), or has a member that reports one. */
export function isErrorObject(value: Record<string, unknown>): boolean {
  return value['object'] === 'error' || value['type'] === 'error' || hasErrorMember(value);
}

/** True for a member with content such as `error`, `errors` or `error_message`. */
export function hasErrorMember(value: Record<string, unknown>): boolean {
  return hasMember(value, (name) => name.startsWith('error'));
}

/** Names of an error's text in an object that has no other sign of an error. */
const ERROR_TEXTS: ReadonlySet<string> = new Set(['message', 'detail', 'msg']);

/** True for a member with the text of an error. It is a sign of one only beside an empty result. */
export function hasErrorText(value: Record<string, unknown>): boolean {
  return hasMember(value, (name) => ERROR_TEXTS.has(name));
}

/** True when a member with content has such a name in lower case. */
function hasMember(value: Record<string, unknown>, isMatch: (name: string) => boolean): boolean {
  return Object.entries(value).some(
    ([name, member]) =>
      isMatch(name.toLowerCase()) && (Array.isArray(member) ? member.length > 0 : Boolean(member)),
  );
}

/**
 * Why an upstream refused a request with 401. `key`: the key itself, by the code of the error. `probably_key`: the key, by
 * the words of the error. `request`: an organization, a project, a model or a permission, which other requests with the
 * same key may not need.
 */
export type RefusalCause = 'key' | 'probably_key' | 'request';

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
