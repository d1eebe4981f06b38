import { STATUS_CODES } from 'node:http';
import type { Response } from 'express';
import type { ClassifiedResponse } from './response.ts';
import { copyResponseHeaders } from './headers.ts';
import { sendStream, type StreamOutcome, type SendOptions } from './send-stream.ts';

/**
 * Sends an upstream's response to the client: a success byte for byte, an error with its status and body, secrets
 * redacted. Only the headers of the allow-list are copied.
 */
export async function sendResponse(
  upstreamResponse: ClassifiedResponse,
  response: Response,
  options: SendOptions,
): Promise<StreamOutcome | 'whole'> {
  copyResponseHeaders(response, upstreamResponse.headers, options.redact);
  if (upstreamResponse.kind === 'stream') return sendStream(upstreamResponse, response, options);
  // A client that does not read must not keep the response in memory forever.
  response.setTimeout(options.idleTimeoutMs, () => response.destroy());
  response.status(upstreamResponse.status).setHeader('content-type', 'application/json');
  if (upstreamResponse.kind === 'error') response.setHeader('x-ops-error-source', 'upstream');
  response.end(toClientBody(upstreamResponse, options));
  return 'whole';
}

/** A success stays unchanged: a mask in it would confirm to a caller which guessed string is the secret. */
function toClientBody(
  upstreamResponse: Exclude<ClassifiedResponse, { kind: 'stream' }>,
  options: SendOptions,
): string | Buffer {
  if (upstreamResponse.kind === 'error') return toErrorBody(upstreamResponse, options);
  return upstreamResponse.hasError
    ? options.redact(upstreamResponse.body.toString('utf8'))
    : upstreamResponse.body;
}

function toErrorBody(
  upstreamResponse: Extract<ClassifiedResponse, { kind: 'error' }>,
  options: SendOptions,
): string {
  if (upstreamResponse.body.length > 0) return options.redact(upstreamResponse.body.toString('utf8'));
  const message =
    `The provider answered ${upstreamResponse.status} ${STATUS_CODES[upstreamResponse.status] ?? ''}`.trim() +
    ' without an explanation.';
  return JSON.stringify({ error: { message, type: 'upstream_error', param: null, code: null } });
}
