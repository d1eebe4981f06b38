import { EventSourceParserStream } from 'eventsource-parser/stream';
import { z } from 'zod';
import { ExitView } from '../../runs/schema.ts';
import { openResponse } from './call.ts';
import { ApiError, isTemporary } from './problem.ts';

/** Events of a run (docs/api.md, "Runs"). */
const StreamedRunEvent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('phase'),
    seq: z.number(),
    phase: z.enum(['queued', 'preparing', 'started']),
    position: z.number().nullish(),
  }),
  z.object({
    type: z.literal('output'),
    seq: z.number(),
    stream: z.enum(['stdout', 'stderr']),
    encoding: z.enum(['utf8', 'base64']),
    data: z.string(),
  }),
  z.object({ type: z.literal('truncated'), seq: z.number(), stream: z.string(), dropped_bytes: z.number() }),
  ExitView.extend({ type: z.literal('exit'), seq: z.number() }),
]);
export type StreamedRunEvent = z.output<typeof StreamedRunEvent>;

export interface FollowOptions {
  onEvent: (event: StreamedRunEvent) => void;
  /** False while the connection is lost and tried again. */
  onConnected: (isConnected: boolean) => void;
  signal: AbortSignal;
}

const RETRY_DELAY_MS = 1_000;

/**
 * Follows a run from its first event to its exit. A lost connection is made again, from the event after the last one.
 * @throws ApiError when the run cannot be read, e.g. 401 and 404.
 */
export async function followRun(id: string, options: FollowOptions): Promise<void> {
  let next = 1;
  const onEvent = (event: StreamedRunEvent) => {
    next = event.seq + 1;
    options.onEvent(event);
  };
  while (!(await readToExit(id, next, { ...options, onEvent }))) {
    options.onConnected(false);
    await new Promise((resolve) => setTimeout(resolve, RETRY_DELAY_MS));
  }
}

/** @returns false when the connection ended before the run; true also when the reader has left. */
async function readToExit(id: string, from: number, options: FollowOptions): Promise<boolean> {
  const { onEvent, onConnected, signal } = options;
  try {
    const events = await openEvents(id, from, signal);
    onConnected(true);
    for await (const event of events) {
      onEvent(event);
      if (event.type === 'exit') return true;
    }
  } catch (error) {
    if (error instanceof ApiError && !isTemporary(error)) throw error;
  }
  return signal.aborted;
}

async function openEvents(
  id: string,
  from: number,
  signal: AbortSignal,
): Promise<AsyncIterable<StreamedRunEvent>> {
  const response = await openResponse(`/api/v1/runs/${encodeURIComponent(id)}/events?from=${String(from)}`, {
    accept: 'text/event-stream',
    signal,
  });
  if (response.body === null) throw new ApiError(response.status, undefined);
  return parseEvents(response.body);
}

async function* parseEvents(body: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncIterable<StreamedRunEvent> {
  const messages = body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  const reader = messages.getReader();
  try {
    for (let read = await reader.read(); !read.done; read = await reader.read())
      yield StreamedRunEvent.parse(JSON.parse(read.value.data));
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
