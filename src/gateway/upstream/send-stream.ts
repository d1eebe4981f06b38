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
/** A comment goes out after this much silence, so that proxies in between keep the connection. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE_COMMENT = ': keep-alive\n\n';

export interface SendOptions {
  requestId: string;
  scrub: Redactor;
  signal: AbortSignal;
  /** A client that takes nothing for so long is given up. */
  idleTimeoutMs: number;
}

/** How a relayed stream ended: with `[DONE]`, without it, or with an error event. */
export type StreamOutcome = 'done' | 'incomplete' | 'failed';

/**
 * Passes an upstream's event stream to the client, bytes unchanged, and holds the upstream back while the
 * client is slow. `[DONE]` ends it. What goes wrong on the upstream's side becomes the protocol's error event,
 * never a clean end.
 * @throws the signal's reason when the client has gone.
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
      throw upstreamMalformed('The provider sent more than is accepted in one answer.');
    const checked = upstreamResponse.isPublic
      ? checkPublicFrames(frames, options.scrub)
      : checkPrivateFrames(frames, options.scrub);
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
  /** The stream has said that it is over. */
  isDone: boolean;
}

/** From a provider: byte for byte, but for secrets in its error events. Most frames are deltas and pass unread. */
function checkPublicFrames(frames: Buffer, scrub: Redactor): CheckedFrames {
  const needsReading = frames.includes('[DONE]') || frames.includes('"error"');
  const data = needsReading ? parseSseData(frames) : [];
  const bytes = data.some((text) => hasErrorMember(parseJson(text)))
    ? Buffer.from(scrub(frames.toString('utf8')))
    : frames;
  return { bytes, isDone: data.includes('[DONE]') };
}

/** From an address that is not public: events of the protocol and nothing beside them, not even comments. */
function checkPrivateFrames(frames: Buffer, scrub: Redactor): CheckedFrames {
  const data = parseSseData(frames);
  const events = data.map((text) => {
    const value = parseJson(text);
    if (text === '[DONE]' || isChatResponse(value)) return toSseEvent(text);
    const error = findProtocolError(value);
    if (error === undefined) throw protocolMismatch();
    return toSseEvent(scrub(JSON.stringify(error)));
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
    'The connection to the provider broke in the middle of the answer.',
    { cause: error },
  );
}
