import type { Readable } from 'node:stream';
import { AppError } from '../lib/errors.ts';
import type { UpstreamAnswer } from '../lib/dialer.ts';

/** Bytes at most of an answer that is not streamed. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;
/** Bytes at most of an error's body. */
const MAX_ERROR_BYTES = 1024 * 1024;

/** An upstream's answer, judged by its head. */
export type JudgedAnswer =
  | { kind: 'stream'; status: number; headers: UpstreamAnswer['headers']; body: Readable; isPublic: boolean }
  | { kind: 'json'; status: number; headers: UpstreamAnswer['headers']; body: Buffer }
  | { kind: 'error'; status: number; headers: UpstreamAnswer['headers']; body: Buffer };

/**
 * Judges an upstream's answer, and reads it whole unless it is a stream: a reset in the middle of a JSON
 * answer can then still become an error in the protocol's shape.
 * @throws AppError `upstream_malformed` for anything but JSON or an event stream (HTML with 200, redirects,
 *   compressed bodies, endless bodies), `upstream_unreachable` and `upstream_timeout` from reading.
 */
export async function judgeAnswer(answer: UpstreamAnswer): Promise<JudgedAnswer> {
  try {
    return await judge(answer);
  } catch (error) {
    answer.body.on('error', () => undefined).destroy();
    throw error;
  }
}

/**
 * Reads a JSON answer that is not a chat answer (a model list), whole and bounded.
 * @throws AppError `upstream_malformed` when the status is not 200 or the body is no JSON.
 */
export async function readJsonAnswer(answer: UpstreamAnswer): Promise<unknown> {
  try {
    if (answer.status !== 200) throw malformed(`The provider answered ${answer.status}.`);
    const value = parseJson(await readWhole(answer.body, MAX_JSON_BYTES));
    if (value === undefined) throw malformed('The provider answered with something that is not JSON.');
    return value;
  } catch (error) {
    answer.body.on('error', () => undefined).destroy();
    throw error;
  }
}

async function judge(answer: UpstreamAnswer): Promise<JudgedAnswer> {
  const { status, headers } = answer;
  const type = mediaType(headers['content-type']);
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw malformed('The provider compressed its answer although it was asked not to.');
  }
  if (status >= 400) return judgeError(answer, type);
  if (status !== 200)
    throw malformed(`The provider answered ${status}, which is no answer to a chat request.`);
  if (type === 'text/event-stream') {
    return { kind: 'stream', status, headers, body: answer.body, isPublic: answer.fromPublicAddress };
  }
  if (type !== 'application/json') throw malformed('The provider answered with something that is not JSON.');
  const body = await readWhole(answer.body, MAX_JSON_BYTES);
  const value = parseJson(body);
  if (value === undefined) throw malformed('The provider answered with JSON that cannot be read.');
  if (!answer.fromPublicAddress && !isChatShaped(value)) throw notTheProtocol();
  return { kind: 'json', status, headers, body };
}

async function judgeError(answer: UpstreamAnswer, type: string): Promise<JudgedAnswer> {
  const { status, headers } = answer;
  const body = await readWhole(answer.body, MAX_ERROR_BYTES);
  if (body.length === 0) return { kind: 'error', status, headers, body };
  const isJson = /^application\/(problem\+)?json$/.test(type) && parseJson(body) !== undefined;
  // A 401 and a 429 steer what comes next, however their body is written.
  if (!isJson && status !== 401 && status !== 429) {
    throw malformed(`The provider answered ${status} with something that is not JSON.`);
  }
  if (!isJson || (!answer.fromPublicAddress && !isErrorShaped(parseJson(body)))) {
    return { kind: 'error', status, headers, body: Buffer.alloc(0) };
  }
  return { kind: 'error', status, headers, body };
}

/** True for a chat completion, a chunk of one, or an error: all that an address in a private network may show. */
export function isChatShaped(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    (Array.isArray((value as { choices?: unknown }).choices) || isErrorShaped(value))
  );
}

function isErrorShaped(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'error' in value;
}

/** Answers from private addresses that are not shaped like the protocol are never shown: they could be anyone's. */
export function notTheProtocol(): AppError {
  return malformed('The endpoint does not speak the chat completions protocol.');
}

function malformed(detail: string): AppError {
  return new AppError('upstream_malformed', detail);
}

function mediaType(header: string | string[] | undefined): string {
  const first = Array.isArray(header) ? header[0] : header;
  return (first ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}

async function readWhole(body: Readable, maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw malformed('The provider sent more than is accepted in one answer.');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8')) as unknown;
  } catch {
    return undefined;
  }
}
