import type { IncomingHttpHeaders } from 'node:http';
import type { Response } from 'express';
import type { Redactor } from '../../lib/redact.ts';
import { LOOP_HEADER } from '../../lib/net/loop-guard.ts';

const IDEMPOTENCY_KEY = 'idempotency-key';
/** Request headers of the client that an upstream may see, whoever pays. */
const FORWARDED_HEADERS = ['anthropic-version', 'anthropic-beta', IDEMPOTENCY_KEY];
/** Those that name the payer's own account, and so go with a personal key only. */
const PERSONAL_KEY_HEADERS = ['openai-organization', 'openai-project'];

/** Response headers of an upstream that a client may see; everything else is dropped. */
const RETURNED_HEADERS =
  /^(retry-after|x-ratelimit-[a-z0-9-]+|anthropic-ratelimit-[a-z0-9-]+|openai-processing-ms|request-id)$/;
const MAX_RETURNED_VALUE_LENGTH = 1_024;
/** What may stand in a header's value that we pass on (RFC 9110, field-value, printable ASCII alone). */
const HEADER_VALUE = /^[\x20-\x7e]*$/;

export interface UpstreamHeaderInput {
  clientHeaders: IncomingHttpHeaders;
  /** Null when the endpoint wants no key. */
  secret: string | null;
  isStreaming: boolean;
  scope: 'personal' | 'organization' | 'system';
  /** For addresses that users brought. */
  loopHeader: string | null;
  /** What an `idempotency-key` becomes on a key that several users share; without it, none is sent there. */
  maskIdempotencyKey?: (value: string) => string;
}

/** Builds the headers of a request to an upstream. Built, never copied: nothing else of the client's goes out. */
export function createUpstreamHeaders(input: UpstreamHeaderInput): Record<string, string> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    accept: input.isStreaming ? 'text/event-stream' : 'application/json',
    // The answer's bytes pass as they are and are inspected, so they must not be compressed.
    'accept-encoding': 'identity',
    'user-agent': 'ops-center',
  };
  if (input.secret !== null) headers['authorization'] = `Bearer ${input.secret}`;
  const forwarded =
    input.scope === 'personal' ? [...FORWARDED_HEADERS, ...PERSONAL_KEY_HEADERS] : FORWARDED_HEADERS;
  for (const name of forwarded) {
    const value = input.clientHeaders[name];
    if (typeof value !== 'string' || !HEADER_VALUE.test(value)) continue;
    const isShared = name === IDEMPOTENCY_KEY && input.scope !== 'personal';
    const sent = isShared ? input.maskIdempotencyKey?.(value) : value;
    if (sent !== undefined) headers[name] = sent;
  }
  if (input.loopHeader !== null) headers[LOOP_HEADER] = input.loopHeader;
  return headers;
}

/** Puts the allowed ones of an upstream's headers on our answer, secrets scrubbed. */
export function copyResponseHeaders(
  response: Response,
  upstreamHeaders: Record<string, string | string[] | undefined>,
  scrub: Redactor,
): void {
  for (const [name, value] of Object.entries(upstreamHeaders)) {
    if (typeof value !== 'string' || !RETURNED_HEADERS.test(name)) continue;
    if (value.length <= MAX_RETURNED_VALUE_LENGTH && HEADER_VALUE.test(value))
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
export function writeReceiptHeaders(response: Response, receipt: Receipt): void {
  response.setHeader('x-ops-provider', receipt.provider);
  response.setHeader('x-ops-model', toHeaderText(receipt.model));
  response.setHeader('x-ops-key-scope', receipt.scope);
  response.setHeader('x-ops-attempts', String(receipt.attempts));
  if (receipt.keyId !== null) response.setHeader('x-ops-key-id', receipt.keyId);
  if (receipt.reason !== null) response.setHeader('x-ops-reason', receipt.reason);
}

function toHeaderText(text: string): string {
  const shortened = text.slice(0, 256);
  return /^[\x21-\x7e]*$/.test(shortened) ? shortened : encodeURIComponent(shortened.toWellFormed());
}
