import { once } from 'node:events';
import type { Response } from 'express';
import { AppError, isAppError } from '../../lib/errors.ts';
import type { Redactor } from '../../lib/redact.ts';
import { protocolMismatch, type ClassifiedResponse } from './response.ts';
import { toOpenAiErrorEvent } from '../surfaces/openai-chat/errors.ts';
import { parseJson } from '../../lib/json.ts';
import { hasErrorMember, findProtocolError, isChatResponse } from '../surfaces/openai-chat/response-shape.ts';
import { parseSseData, toSseEvent, readSseFrames } from './sse-frames.ts';
import { discardBody, upstreamMalformed } from '../../lib/net/upstream-body.ts';

const MAX_FRAME_BYTES = 8 * 1024 * 1024;
const MAX_STREAM_BYTES = 1024 * 1024 * 1024;
/** A comment is sent after this much silence, so that proxies on the way keep the connection open. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE_COMMENT = ': keep-alive\n\n';

export interface SendOptions {
  requestId: string;
  redact: Redactor;
  signal: AbortSignal;
  /** The connection is closed when the client reads nothing for this long. */
  idleTimeoutMs: number;
}

/** How the stream ended: with `[DONE]`, without it, or with an error event. */
export type StreamOutcome = 'done' | 'incomplete' | 'failed';

/**
 * Sends an upstream's event stream to the client, bytes unchanged, with backpressure to the upstream while the
 * client is slow. `[DONE]` ends the stream. An upstream failure becomes an error event of the protocol, never a
 * clean end.
 * @throws the signal's reason when the client has disconnected.
 */
export async function sendStream(
  upstreamResponse: Extract<ClassifiedResponse, { kind: 'stream' }>,
  response: Response,
  options: SendOptions,
): Promise<StreamOutcome> {
  response.status(200).setHeader('content-type', 'text/event-stream; charset=utf-8');
  response.flushHeaders();
  const keepAlive = setInterval(() => {
    if (!response.writableNeedDrain) response.write(KEEP_ALIVE_COMMENT);
  }, KEEP_ALIVE_MS);
  try {
    return await sendFrames(upstreamResponse, response, options, () => keepAlive.refresh());
  } catch (error) {
    if (response.destroyed) throw error;
    const streamError = toStreamError(options.signal.aborted ? options.signal.reason : error);
    response.end(toOpenAiErrorEvent(streamError, options.requestId));
    return 'failed';
  } finally {
    clearInterval(keepAlive);
    discardBody(upstreamResponse.body);
  }
}

async function sendFrames(
  upstreamResponse: Extract<ClassifiedResponse, { kind: 'stream' }>,
  response: Response,
  options: SendOptions,
  onFrame: () => void,
): Promise<StreamOutcome> {
  let total = 0;
  for await (const frames of readSseFrames(upstreamResponse.body, MAX_FRAME_BYTES)) {
    options.signal.throwIfAborted();
    onFrame();
    total += frames.length;
    if (total > MAX_STREAM_BYTES)
      throw upstreamMalformed('The response of the provider exceeds the size limit.');
    const checked = upstreamResponse.isPublic
      ? checkPublicFrames(frames, options.redact)
      : checkPrivateFrames(frames, options.redact);
    await writeWithBackpressure(response, checked.bytes, options);
    if (checked.isDone) {
      response.end();
      return 'done';
    }
  }
  response.end();
  return 'incomplete';
}

interface CheckedFrames {
  bytes: Buffer;
  /** True when the frames contain `[DONE]`. */
  isDone: boolean;
}

/** Frames from a public address stay unchanged, except for secrets in error events. Most frames are deltas and are not parsed. */
function checkPublicFrames(frames: Buffer, redact: Redactor): CheckedFrames {
  const needsReading = frames.includes('[DONE]') || frames.includes('"error"');
  const data = needsReading ? parseSseData(frames) : [];
  const bytes = data.some((text) => hasErrorMember(parseJson(text)))
    ? Buffer.from(redact(frames.toString('utf8')))
    : frames;
  return { bytes, isDone: data.includes('[DONE]') };
}

/** Frames from a private address are reduced to events of the protocol. Comments and other fields are dropped. */
function checkPrivateFrames(frames: Buffer, redact: Redactor): CheckedFrames {
  const data = parseSseData(frames);
  const events = data.map((text) => {
    const value = parseJson(text);
    if (text === '[DONE]' || isChatResponse(value)) return toSseEvent(text);
    const error = findProtocolError(value);
    if (error === undefined) throw protocolMismatch();
    return toSseEvent(redact(JSON.stringify(error)));
  });
  return { bytes: Buffer.from(events.join('')), isDone: data.includes('[DONE]') };
}

async function writeWithBackpressure(response: Response, bytes: Buffer, options: SendOptions): Promise<void> {
  if (response.write(bytes)) return;
  const writeTimeout = AbortSignal.timeout(options.idleTimeoutMs);
  try {
    await once(response, 'drain', { signal: AbortSignal.any([options.signal, writeTimeout]) });
  } catch (error) {
    if (writeTimeout.aborted) response.destroy();
    throw error;
  }
}

function toStreamError(error: unknown): AppError {
  if (isAppError(error)) return error;
  return new AppError(
    'upstream_unreachable',
    'The connection to the provider broke in the middle of the response.',
    { cause: error },
  );
}
