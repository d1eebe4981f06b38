import type { Readable } from 'node:stream';
import type { UpstreamAnswer } from '../lib/dialer.ts';
import { parseJson } from '../lib/json-bounds.ts';
import { carriesError, findProtocolError, isChatAnswer } from './protocol-shape.ts';
import { discard, malformed, readWhole } from '../lib/upstream-body.ts';

/** Bytes at most of an answer that is not streamed. */
const MAX_JSON_BYTES = 32 * 1024 * 1024;
/** Bytes at most of an error's body. */
const MAX_ERROR_BYTES = 1024 * 1024;
/** Answers that steer what comes next, however their body is written: a refused key, a limit. */
const STEERING_STATUSES = new Set([401, 429]);

interface Head {
  status: number;
  headers: UpstreamAnswer['headers'];
}

/** An upstream's answer, judged by its head. */
export type JudgedAnswer =
  | (Head & { kind: 'stream'; body: Readable; isPublic: boolean })
  /** `carriesError`: some report a failure with status 200; it is shown as any other error is. */
  | (Head & { kind: 'json'; body: Buffer; carriesError: boolean })
  /** An empty body: there was none, or it may not be shown. */
  | (Head & { kind: 'error'; body: Buffer });

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
    discard(answer.body);
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
  const value = parseJson(body.toString('utf8'));
  if (value === undefined) throw malformed('The provider answered with JSON that cannot be read.');
  if (!answer.fromPublicAddress && !isChatAnswer(value)) throw notTheProtocol();
  return { kind: 'json', status, headers, body, carriesError: carriesError(value) };
}

async function judgeError(answer: UpstreamAnswer, type: string): Promise<JudgedAnswer> {
  const { status, headers } = answer;
  const body = await readWhole(answer.body, MAX_ERROR_BYTES);
  const value = /^application\/(problem\+)?json$/.test(type) ? parseJson(body.toString('utf8')) : undefined;
  if (body.length > 0 && value === undefined && !STEERING_STATUSES.has(status)) {
    throw malformed(`The provider answered ${status} with something that is not JSON.`);
  }
  if (value === undefined) return { kind: 'error', status, headers, body: Buffer.alloc(0) };
  if (answer.fromPublicAddress) return { kind: 'error', status, headers, body };
  const error = findProtocolError(value);
  return {
    kind: 'error',
    status,
    headers,
    body: Buffer.from(error === undefined ? '' : JSON.stringify(error)),
  };
}

/** The one wording for what a private address says that is not the protocol: it could be anyone's. */
export function notTheProtocol() {
  return malformed('The endpoint does not speak the chat completions protocol.');
}

function mediaType(header: string | string[] | undefined): string {
  const first = Array.isArray(header) ? header[0] : header;
  return (first ?? '').split(';')[0]?.trim().toLowerCase() ?? '';
}
