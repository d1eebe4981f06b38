import { STATUS_CODES } from 'node:http';
import type { Response } from 'express';
import type { JudgedAnswer } from './answer.ts';
import { returnHeaders } from './headers.ts';
import { relayStream, type RelayEnd, type RelayOptions } from './relay.ts';

/**
 * Passes an upstream's answer to the client: success byte for byte, errors with their status and body,
 * secrets scrubbed. Only the headers of the allow-list go along.
 */
export async function deliver(
  answer: JudgedAnswer,
  response: Response,
  options: RelayOptions,
): Promise<RelayEnd | 'whole'> {
  returnHeaders(response, answer.headers, options.scrub);
  if (answer.kind === 'stream') return relayStream(answer, response, options);
  // A client that takes nothing of an answer must not keep it in memory for ever.
  response.setTimeout(options.idleTimeoutMs, () => response.destroy());
  response.status(answer.status).setHeader('content-type', 'application/json');
  if (answer.kind === 'error') response.setHeader('x-ops-error-source', 'upstream');
  response.end(bodyToShow(answer, options));
  return 'whole';
}

/** A success goes out as it came: masks in it would tell a caller which of the strings they guess is the secret. */
function bodyToShow(
  answer: Exclude<JudgedAnswer, { kind: 'stream' }>,
  options: RelayOptions,
): string | Buffer {
  if (answer.kind === 'error') return errorBody(answer, options);
  return answer.carriesError ? options.scrub(answer.body.toString('utf8')) : answer.body;
}

function errorBody(answer: Extract<JudgedAnswer, { kind: 'error' }>, options: RelayOptions): string {
  if (answer.body.length > 0) return options.scrub(answer.body.toString('utf8'));
  const message =
    `The provider answered ${answer.status} ${STATUS_CODES[answer.status] ?? ''}`.trim() +
    ' without an explanation.';
  return JSON.stringify({ error: { message, type: 'upstream_error', param: null, code: null } });
}
