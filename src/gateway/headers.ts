import type { IncomingHttpHeaders } from 'node:http';
import type { Response } from 'express';
import type { Scrub } from '../lib/scrub.ts';
import { HOP_HEADER } from '../lib/hop.ts';

const IDEMPOTENCY_KEY = 'idempotency-key';
/** Request headers of the client that an upstream may see, whoever pays. */
const FORWARDED = ['anthropic-version', 'anthropic-beta', IDEMPOTENCY_KEY];
/** Those that name the payer's own account, and so go with a personal key only. */
const FORWARDED_WITH_PERSONAL_KEY = ['openai-organization', 'openai-project'];

/** Response headers of an upstream that a client may see; everything else is dropped. */
const RETURNED =
  /^(retry-after|x-ratelimit-[a-z0-9-]+|anthropic-ratelimit-[a-z0-9-]+|openai-processing-ms|request-id)$/;
const LONGEST_RETURNED_VALUE = 1_024;
/** What may stand in a header's value that we pass on (RFC 9110, field-value, printable ASCII alone). */
const HEADER_VALUE = /^[\x20-\x7e]*$/;

export interface UpstreamHeaderInput {
  client: IncomingHttpHeaders;
  /** Null when the endpoint wants no key. */
  secret: string | null;
  stream: boolean;
  scope: 'personal' | 'organization' | 'system';
  /** For addresses that users brought. */
  hop: string | null;
  /** What an `idempotency-key` becomes on a key that several users share; without it, none is sent there. */
  maskIdempotencyKey?: (value: string) => string;
}

/** Builds the headers of a request to an upstream. Built, never copied: nothing else of the client's goes out. */
export function upstreamHeaders(input: UpstreamHeaderInput): Record<string, string> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    accept: input.stream ? 'text/event-stream' : 'application/json',
    // The answer's bytes pass as they are and are inspected, so they must not be compressed.
    'accept-encoding': 'identity',
    'user-agent': 'ops-center',
  };
  if (input.secret !== null) headers['authorization'] = `Bearer ${input.secret}`;
  const forwarded = input.scope === 'personal' ? [...FORWARDED, ...FORWARDED_WITH_PERSONAL_KEY] : FORWARDED;
  for (const name of forwarded) {
    const value = input.client[name];
    if (typeof value !== 'string' || !HEADER_VALUE.test(value)) continue;
    const isShared = name === IDEMPOTENCY_KEY && input.scope !== 'personal';
    const sent = isShared ? input.maskIdempotencyKey?.(value) : value;
    if (sent !== undefined) headers[name] = sent;
  }
  if (input.hop !== null) headers[HOP_HEADER] = input.hop;
  return headers;
}

/** Puts the allowed ones of an upstream's headers on our answer, secrets scrubbed. */
export function returnHeaders(
  response: Response,
  upstream: Record<string, string | string[] | undefined>,
  scrub: Scrub,
): void {
  for (const [name, value] of Object.entries(upstream)) {
    if (typeof value !== 'string' || !RETURNED.test(name)) continue;
    if (value.length <= LONGEST_RETURNED_VALUE && HEADER_VALUE.test(value))
      response.setHeader(name, scrub(value));
  }
}

/** Who answered and who paid; on every answer from the moment it is known. */
export interface Receipt {
  provider: string;
  model: string;
  scope: 'personal' | 'organization' | 'system';
  /** Null for the system's key. */
  keyId: string | null;
  /** Calls made to upstreams so far. */
  attempts: number;
  reason: string | null;
}

/** Writes the receipt headers; `model` is percent-encoded where it is not plain ASCII. */
export function writeReceipt(response: Response, receipt: Receipt): void {
  response.setHeader('x-ops-provider', receipt.provider);
  response.setHeader('x-ops-model', headerText(receipt.model));
  response.setHeader('x-ops-key-scope', receipt.scope);
  response.setHeader('x-ops-attempts', String(receipt.attempts));
  if (receipt.keyId !== null) response.setHeader('x-ops-key-id', receipt.keyId);
  if (receipt.reason !== null) response.setHeader('x-ops-reason', receipt.reason);
}

function headerText(text: string): string {
  const shortened = text.slice(0, 256);
  return /^[\x21-\x7e]*$/.test(shortened) ? shortened : encodeURIComponent(shortened.toWellFormed());
}
