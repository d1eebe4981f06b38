import type { IncomingHttpHeaders } from 'node:http';
import { HEADER_VALUE, type Receipt } from './response-headers.ts';

export const IDEMPOTENCY_KEY = 'idempotency-key';
/** Client request headers that every upstream may receive. */
const FORWARDED_HEADERS = ['anthropic-version', 'anthropic-beta', IDEMPOTENCY_KEY];
/** Headers that name the payer's account. They are sent with a personal key only. */
const ACCOUNT_HEADERS = ['openai-organization', 'openai-project'];
/** Of Anthropic's protocol, which adds headers. Some select paid features, so they are sent with a personal key only. */
const ANTHROPIC_HEADER = /^anthropic-[a-z0-9-]{1,64}$/;

/** The headers of the client that the upstream receives, by an allow-list. */
export function listForwardedHeaders(
  clientHeaders: IncomingHttpHeaders,
  scope: Receipt['scope'],
): Record<string, string> {
  const isPersonal = scope === 'personal';
  const ofProtocol = isPersonal
    ? Object.keys(clientHeaders).filter((name) => ANTHROPIC_HEADER.test(name))
    : [];
  const names = [...FORWARDED_HEADERS, ...(isPersonal ? ACCOUNT_HEADERS : []), ...ofProtocol];
  const headers: Record<string, string> = {};
  for (const name of names) {
    const value = clientHeaders[name];
    if (typeof value === 'string' && HEADER_VALUE.test(value)) headers[name] = value;
  }
  return headers;
}

/** True when the upstream receives headers of the client that name the payer's account. */
export function forwardsAccountHeaders(clientHeaders: IncomingHttpHeaders, scope: Receipt['scope']): boolean {
  const forwarded = listForwardedHeaders(clientHeaders, scope);
  return ACCOUNT_HEADERS.some((name) => name in forwarded);
}
