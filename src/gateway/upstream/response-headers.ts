import type { Response } from 'express';
import type { Redactor } from '../../lib/redact.ts';

/** Upstream response headers that are copied to the client; all others are dropped. */
const RETURNED_HEADERS =
  /^(retry-after|retry-after-ms|x-should-retry|x-ratelimit-[a-z0-9-]+|anthropic-ratelimit-[a-z0-9-]+|openai-processing-ms|request-id)$/;
/** SDKs act on these two, so nothing but the values that they define is copied. */
const VALUES_BY_HEADER: Readonly<Record<string, RegExp>> = {
  'retry-after-ms': /^[0-9]{1,12}(\.[0-9]{1,6})?$/,
  'x-should-retry': /^(true|false)$/,
};
/**
 * Where providers name a request. `x-request-id`: OpenAI, Groq, Together, xAI; `request-id`: Anthropic;
 * `apim-request-id`, `x-ms-request-id`: Azure; `x-amzn-requestid`: AWS; then OpenRouter, Mistral, Cohere, DeepSeek,
 * LiteLLM, and the proxy in front of many others.
 */
const REQUEST_ID_HEADERS = [
  ...['x-request-id', 'request-id', 'apim-request-id', 'x-ms-request-id', 'x-amzn-requestid'],
  ...['x-generation-id', 'mistral-correlation-id', 'x-debug-trace-id', 'x-ds-trace-id', 'x-litellm-call-id'],
  'cf-ray',
];
const SAFE_REQUEST_ID = /^[A-Za-z0-9._:=/+-]{1,128}$/;
const UPSTREAM_REQUEST_ID = 'x-ops-upstream-request-id';
const MAX_RETURNED_VALUE_LENGTH = 1_024;
/** Header values that are copied, in both directions: printable ASCII, a subset of field-value in RFC 9110. */
export const HEADER_VALUE = /^[\x20-\x7e]*$/;

type UpstreamHeaders = Record<string, string | string[] | undefined>;

/**
 * Copies the allowed headers of an upstream's response, secrets redacted. A header that the gateway has already set
 * stays. No effect when the headers were sent.
 */
export function copyResponseHeaders(
  response: Response,
  upstreamHeaders: UpstreamHeaders,
  redact: Redactor,
): void {
  if (response.headersSent) return;
  for (const [name, value] of Object.entries(upstreamHeaders)) {
    if (typeof value !== 'string' || !RETURNED_HEADERS.test(name) || response.hasHeader(name)) continue;
    const redacted = value.length > MAX_RETURNED_VALUE_LENGTH ? undefined : redact(value);
    if (redacted !== undefined && (VALUES_BY_HEADER[name] ?? HEADER_VALUE).test(redacted))
      response.setHeader(name, redacted);
  }
}

/** The upstream's id of a request, by which its support finds the request; null when it sent none that may be shown. */
export function findUpstreamRequestId(upstreamHeaders: UpstreamHeaders, redact: Redactor): string | null {
  for (const name of REQUEST_ID_HEADERS) {
    const value = upstreamHeaders[name];
    if (typeof value === 'string' && SAFE_REQUEST_ID.test(value) && redact(value) === value) return value;
  }
  return null;
}

/** Which provider served the request and who paid. Sent with every response as soon as it is known. */
export interface Receipt {
  readonly provider: string;
  readonly model: string;
  readonly scope: 'personal' | 'organization' | 'system';
  /** Null for the system's key. */
  readonly keyId: string | null;
  /** Names the endpoint that the key brings; null for the provider's or operator's address. */
  readonly endpointSlug: string | null;
  /** Calls made to upstreams so far. */
  readonly attempts: number;
  readonly reason: string | null;
  /** The provider's own id of the last call; null while it is not known, or where it may not be shown. */
  readonly upstreamRequestId: string | null;
}

/**
 * Writes the `x-ops-*` headers. The model is percent-encoded when it is not printable ASCII. No effect when the headers
 * were sent.
 */
export function writeReceiptHeaders(response: Response, receipt: Receipt): void {
  if (response.headersSent) return;
  response.setHeader('x-ops-provider', receipt.provider);
  response.setHeader('x-ops-model', toHeaderText(receipt.model));
  response.setHeader('x-ops-key-scope', receipt.scope);
  response.setHeader('x-ops-attempts', String(receipt.attempts));
  if (receipt.keyId !== null) response.setHeader('x-ops-key-id', receipt.keyId);
  if (receipt.endpointSlug !== null) response.setHeader('x-ops-endpoint', receipt.endpointSlug);
  if (receipt.reason !== null) response.setHeader('x-ops-reason', receipt.reason);
  // Removes the id of an earlier attempt.
  if (receipt.upstreamRequestId === null) response.removeHeader(UPSTREAM_REQUEST_ID);
  else response.setHeader(UPSTREAM_REQUEST_ID, receipt.upstreamRequestId);
}

/** Removes what names the provider, the key and the payer, before a response begins whose attempts have not ended. */
export function removeReceiptHeaders(response: Response): void {
  for (const name of response.getHeaderNames())
    if (/^(x-ops-|ratelimit)/.test(name)) response.removeHeader(name);
}

function toHeaderText(text: string): string {
  const shortened = text.slice(0, 256);
  return /^[\x21-\x7e]*$/.test(shortened) ? shortened : encodeURIComponent(shortened.toWellFormed());
}
