import { STATUS_CODES } from 'node:http';
import type { Response } from 'express';
import { createSseWriter, toSseEvent, type SseWriter } from '../../http/sse.ts';
import { AppError, isAppError } from '../../lib/errors.ts';
import { parseJson } from '../../lib/json.ts';
import { discardBody, upstreamMalformed } from '../../lib/net/upstream-body.ts';
import type { Redactor } from '../../lib/redact.ts';
import type { Surface } from '../surface.ts';
import { copyResponseHeaders } from './headers.ts';
import { protocolMismatch, type ClassifiedResponse } from './response.ts';
import { parseSseData, readSseFrames } from './sse-frames.ts';

const MAX_FRAME_BYTES = 8 * 1024 * 1024;
const MAX_STREAM_BYTES = 1024 * 1024 * 1024;

export interface SendOptions {
  surface: Surface;
  requestId: string;
  redact: Redactor;
  signal: AbortSignal;
  /** The connection is closed when the client reads nothing for this long. */
  idleTimeoutMs: number;
}

/** How the response ended: sent whole, or as a stream with the protocol's last event, without it, or with an error event. */
export type SendOutcome = 'whole' | 'done' | 'incomplete' | 'failed';

type StreamResponse = Extract<ClassifiedResponse, { kind: 'stream' }>;

/**
 * Sends an upstream's response to the client: a success byte for byte, an error with its status and body, secrets
 * redacted. Only the headers of the allow-list are copied.
 */
export async function sendResponse(
  upstreamResponse: ClassifiedResponse,
  response: Response,
  options: SendOptions,
): Promise<SendOutcome> {
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
    `The provider responded with status ${upstreamResponse.status} ${STATUS_CODES[upstreamResponse.status] ?? ''}`.trim() +
    ' without an explanation.';
  return JSON.stringify(options.surface.toUpstreamError(message));
}

/**
 * Sends an upstream's event stream to the client, bytes unchanged, with back pressure to the upstream while the
 * client is slow. The protocol's last event ends the stream. An upstream failure becomes an error event of the
 * protocol, never a clean end.
 * @throws the signal's reason when the client has disconnected.
 */
async function sendStream(
  upstreamResponse: StreamResponse,
  response: Response,
  options: SendOptions,
): Promise<SendOutcome> {
  using events = createSseWriter(response, { idleComment: 'keep-alive', ...options });
  try {
    const outcome = await sendFrames(upstreamResponse, events, options);
    response.end();
    return outcome;
  } catch (error) {
    if (response.destroyed) throw error;
    const streamError = toStreamError(options.signal.aborted ? options.signal.reason : error);
    response.end(options.surface.toErrorEvent(streamError, options.requestId));
    return 'failed';
  } finally {
    discardBody(upstreamResponse.body);
  }
}

async function sendFrames(
  upstreamResponse: StreamResponse,
  events: SseWriter,
  options: SendOptions,
): Promise<SendOutcome> {
  let total = 0;
  for await (const frames of readSseFrames(upstreamResponse.body, MAX_FRAME_BYTES)) {
    options.signal.throwIfAborted();
    total += frames.length;
    if (total > MAX_STREAM_BYTES)
      throw upstreamMalformed('The response of the provider exceeds the size limit.');
    const checked = upstreamResponse.isPublic
      ? checkPublicFrames(frames, options)
      : checkPrivateFrames(frames, options);
    await events.write(checked.bytes);
    if (checked.isDone) return 'done';
  }
  return 'incomplete';
}

interface CheckedFrames {
  bytes: Buffer;
  /** True when the frames contain the last event of the stream. */
  isDone: boolean;
}

/** Frames from a public address stay unchanged, except for secrets in error events. Most frames are deltas and are not parsed. */
function checkPublicFrames(frames: Buffer, { surface, redact }: SendOptions): CheckedFrames {
  const needsReading = frames.includes(surface.endOfStream) || frames.includes('"error"');
  const data = needsReading ? parseSseData(frames) : [];
  const bytes = data.some((text) => surface.hasError(parseJson(text)))
    ? Buffer.from(redact(frames.toString('utf8')))
    : frames;
  return { bytes, isDone: data.includes(surface.endOfStream) };
}

/** Frames from a private address are reduced to events of the protocol. Comments and other fields are dropped. */
function checkPrivateFrames(frames: Buffer, { surface, redact }: SendOptions): CheckedFrames {
  const data = parseSseData(frames);
  const events = data.map((text) => {
    const value = parseJson(text);
    if (text === surface.endOfStream || surface.isResponse(value)) return toSseEvent(text);
    const error = surface.findError(value);
    if (error === undefined) throw protocolMismatch(surface);
    return toSseEvent(redact(JSON.stringify(error)));
  });
  return { bytes: Buffer.from(events.join('')), isDone: data.includes(surface.endOfStream) };
}

function toStreamError(error: unknown): AppError {
  if (isAppError(error)) return error;
  return new AppError(
    'upstream_unreachable',
    'The connection to the provider broke in the middle of the response.',
    { cause: error },
  );
}
