import { once } from 'node:events';
import type { Response } from 'express';
import { AppError, isAppError } from '../lib/errors.ts';
import type { Scrub } from '../lib/scrub.ts';
import { notTheProtocol, type JudgedAnswer } from './answer.ts';
import { openAiErrorEvent } from './openai-errors.ts';
import { parseJson } from '../lib/json-bounds.ts';
import { carriesError, findProtocolError, isChatAnswer } from './protocol-shape.ts';
import { sseData, sseEvent, sseFrames } from './sse-frames.ts';
import { discard, malformed } from '../lib/upstream-body.ts';

const MAX_FRAME_BYTES = 8 * 1024 * 1024;
const MAX_STREAM_BYTES = 1024 * 1024 * 1024;
/** A comment goes out after this much silence, so that proxies in between keep the connection. */
const KEEP_ALIVE_MS = 15_000;
const KEEP_ALIVE_COMMENT = ': keep-alive\n\n';

export interface RelayOptions {
  requestId: string;
  scrub: Scrub;
  signal: AbortSignal;
  /** A client that takes nothing for so long is given up. */
  idleTimeoutMs: number;
}

/** How a relayed stream ended: with `[DONE]`, without it, or with an error event. */
export type RelayEnd = 'done' | 'incomplete' | 'failed';

/**
 * Passes an upstream's event stream to the client, bytes unchanged, and holds the upstream back while the
 * client is slow. `[DONE]` ends it. What goes wrong on the upstream's side becomes the protocol's error event,
 * never a clean end.
 * @throws the signal's reason when the client has gone.
 */
export async function relayStream(
  answer: Extract<JudgedAnswer, { kind: 'stream' }>,
  response: Response,
  options: RelayOptions,
): Promise<RelayEnd> {
  response.status(200).setHeader('content-type', 'text/event-stream; charset=utf-8');
  response.flushHeaders();
  const keepAlive = setInterval(() => {
    if (!response.writableNeedDrain) response.write(KEEP_ALIVE_COMMENT);
  }, KEEP_ALIVE_MS);
  try {
    return await relayFrames(answer, response, options, () => keepAlive.refresh());
  } catch (error) {
    if (response.destroyed) throw error;
    const failure = asStreamError(options.signal.aborted ? options.signal.reason : error);
    response.end(openAiErrorEvent(failure, options.requestId));
    return 'failed';
  } finally {
    clearInterval(keepAlive);
    discard(answer.body);
  }
}

async function relayFrames(
  answer: Extract<JudgedAnswer, { kind: 'stream' }>,
  response: Response,
  options: RelayOptions,
  onFrame: () => void,
): Promise<RelayEnd> {
  let total = 0;
  for await (const frames of sseFrames(answer.body, MAX_FRAME_BYTES)) {
    options.signal.throwIfAborted();
    onFrame();
    total += frames.length;
    if (total > MAX_STREAM_BYTES) throw malformed('The provider sent more than is accepted in one answer.');
    const passed = answer.isPublic
      ? publicFrames(frames, options.scrub)
      : privateFrames(frames, options.scrub);
    await write(response, passed.bytes, options);
    if (passed.isDone) {
      response.end();
      return 'done';
    }
  }
  response.end();
  return 'incomplete';
}

interface Passed {
  bytes: Buffer;
  /** The stream has said that it is over. */
  isDone: boolean;
}

/** From a provider: byte for byte, but for secrets in its error events. Most frames are deltas and pass unread. */
function publicFrames(frames: Buffer, scrub: Scrub): Passed {
  const needsReading = frames.includes('[DONE]') || frames.includes('"error"');
  const data = needsReading ? sseData(frames) : [];
  const bytes = data.some((text) => carriesError(parseJson(text)))
    ? Buffer.from(scrub(frames.toString('utf8')))
    : frames;
  return { bytes, isDone: data.includes('[DONE]') };
}

/** From an address that is not public: events of the protocol and nothing beside them, not even comments. */
function privateFrames(frames: Buffer, scrub: Scrub): Passed {
  const data = sseData(frames);
  const events = data.map((text) => {
    const value = parseJson(text);
    if (text === '[DONE]' || isChatAnswer(value)) return sseEvent(text);
    const error = findProtocolError(value);
    if (error === undefined) throw notTheProtocol();
    return sseEvent(scrub(JSON.stringify(error)));
  });
  return { bytes: Buffer.from(events.join('')), isDone: data.includes('[DONE]') };
}

async function write(response: Response, bytes: Buffer, options: RelayOptions): Promise<void> {
  if (response.write(bytes)) return;
  const givenUp = AbortSignal.timeout(options.idleTimeoutMs);
  try {
    await once(response, 'drain', { signal: AbortSignal.any([options.signal, givenUp]) });
  } catch (error) {
    if (givenUp.aborted) response.destroy();
    throw error;
  }
}

function asStreamError(error: unknown): AppError {
  if (isAppError(error)) return error;
  return new AppError(
    'upstream_unreachable',
    'The connection to the provider broke in the middle of the answer.',
    { cause: error },
  );
}
