import { STATUS_CODES } from 'node:http';
import type { Response } from 'express';
import type { ClassifiedResponse } from './response.ts';
import { copyResponseHeaders } from './headers.ts';
import { sendStream, type StreamOutcome, type SendOptions } from './send-stream.ts';

/**
 * Passes an upstream's answer to the client: success byte for byte, errors with their status and body,
 * secrets scrubbed. Only the headers of the allow-list go along.
 */
export async function sendResponse(
  upstreamResponse: ClassifiedResponse,
  response: Response,
  options: SendOptions,
): Promise<StreamOutcome | 'whole'> {
  copyResponseHeaders(response, upstreamResponse.headers, options.scrub);
  if (upstreamResponse.kind === 'stream') return sendStream(upstreamResponse, response, options);
  // A client that takes nothing of an answer must not keep it in memory for ever.
  response.setTimeout(options.idleTimeoutMs, () => response.destroy());
  response.status(upstreamResponse.status).setHeader('content-type', 'application/json');
  if (upstreamResponse.kind === 'error') response.setHeader('x-ops-error-source', 'upstream');
  response.end(toClientBody(upstreamResponse, options));
  return 'whole';
}

/** A success goes out as it came: masks in it would tell a caller which of the strings they guess is the secret. */
function toClientBody(
  upstreamResponse: Exclude<ClassifiedResponse, { kind: 'stream' }>,
  options: SendOptions,
): string | Buffer {
  if (upstreamResponse.kind === 'error') return toErrorBody(upstreamResponse, options);
  return upstreamResponse.hasError
    ? options.scrub(upstreamResponse.body.toString('utf8'))
    : upstreamResponse.body;
}

function toErrorBody(
  upstreamResponse: Extract<ClassifiedResponse, { kind: 'error' }>,
  options: SendOptions,
): string {
  if (upstreamResponse.body.length > 0) return options.scrub(upstreamResponse.body.toString('utf8'));
  const message =
    `The provider answered ${upstreamResponse.status} ${STATUS_CODES[upstreamResponse.status] ?? ''}`.trim() +
    ' without an explanation.';
  return JSON.stringify({ error: { message, type: 'upstream_error', param: null, code: null } });
}
