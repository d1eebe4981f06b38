import { once } from 'node:events';
import type { Response } from 'express';
import { AppError, isAppError } from '../lib/errors.ts';
import type { Scrub } from '../lib/scrub.ts';
import { isChatShaped, notTheProtocol, type JudgedAnswer } from './answer.ts';
import { openAiErrorEvent } from './openai-errors.ts';
import { sseData, sseFrames } from './sse-frames.ts';

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
    answer.body.on('error', () => undefined).destroy();
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
    if (total > MAX_STREAM_BYTES)
      throw new AppError('upstream_malformed', 'The provider sent more than is accepted in one answer.');
    const data = needsReading(frames, answer.isPublic) ? sseData(frames) : [];
    if (!answer.isPublic && !data.every(isProtocolData)) throw notTheProtocol();
    const isError = data.some(isErrorData);
    await write(response, isError ? Buffer.from(options.scrub(frames.toString('utf8'))) : frames, options);
    if (data.includes('[DONE]')) {
      response.end();
      return 'done';
    }
  }
  response.end();
  return 'incomplete';
}

/** Most frames are plain deltas from a known provider and pass unread. */
function needsReading(frames: Buffer, isPublic: boolean): boolean {
  return !isPublic || frames.includes('[DONE]') || frames.includes('"error"');
}

function isProtocolData(data: string): boolean {
  return data === '[DONE]' || isChatShaped(parse(data));
}

function isErrorData(data: string): boolean {
  const value = parse(data);
  return typeof value === 'object' && value !== null && 'error' in value;
}

function parse(data: string): unknown {
  try {
    return JSON.parse(data) as unknown;
  } catch {
    return undefined;
  }
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
