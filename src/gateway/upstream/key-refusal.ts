import { toKeyTestOutcome } from '../../providers/key-test.ts';
import { isObject, type Provider } from '../../providers/provider.ts';
import type { Surface } from '../surface.ts';
import type { ErrorResponse } from './response.ts';

export interface KeyRefusalContext {
  surface: Surface;
  provider: Provider;
  /** True when the upstream received `openai-organization` or `openai-project` from the client. */
  forwardsAccountHeaders: boolean;
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

/**
 * True when a 401 shows that the key itself is refused. A 401 that this request caused (its organization, project, model
 * or missing scope) or that reports an empty account is not about the key, which other requests can use.
 * A 401 without an explanation counts as about the key, unless the client named an organization or a project.
 */
export function isKeyRefusal(response: ErrorResponse, context: KeyRefusalContext): boolean {
  const { status, value } = response;
  if (status !== 401) return false;
  const { codes, text } = readError(value, context.surface);
  if (codes.some((code) => KEY_CODE.test(code))) return true;
  if (toKeyTestOutcome(context.provider, { status, body: value }).status !== 'invalid') return false;
  if (KEY_TEXT.test(text)) return true;
  if (REQUEST_TEXT.test(text)) return false;
  return !context.forwardsAccountHeaders;
}

/** The error's codes, and all its words. */
function readError(value: unknown, surface: Surface): { codes: string[]; text: string } {
  const found = surface.findError(value);
  const error = isObject(found) && isObject(found['error']) ? found['error'] : {};
  const toWords = (member: unknown) => (typeof member === 'string' ? member.replaceAll(/[_-]/g, ' ') : '');
  const codes = [toWords(error['code']), toWords(error['type'])];
  return { codes, text: [...codes, toWords(error['message'])].join(' ') };
}
