import { z } from 'zod';
import type { NumberedEvent, RunExit, ViewerEvent } from './events.ts';
import { CLEANUPS, EXIT_CAUSES } from './schema.ts';

const stream = z.enum(['stdout', 'stderr']);

/** An event on the wire and in the stored history. */
const WireEvent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('phase'),
    phase: z.enum(['queued', 'preparing', 'started']),
    position: z.number().int().optional(),
  }),
  z.object({ type: z.literal('output'), stream, encoding: z.enum(['utf8', 'base64']), data: z.string() }),
  z.object({ type: z.literal('truncated'), stream, dropped_bytes: z.number().int() }),
  z.object({
    type: z.literal('exit'),
    cause: z.enum(EXIT_CAUSES),
    code: z.number().int().nullable(),
    signal: z.string().nullable(),
    cleanup: z.enum(CLEANUPS),
    message: z.string().nullable(),
    duration_ms: z.number().int(),
  }),
]);
type WireEvent = z.output<typeof WireEvent>;

export const StoredEvent = z.object({ seq: z.number().int(), event: WireEvent });
export type StoredEvent = z.output<typeof StoredEvent>;

export function toWireExit({ cause, code, signal, cleanup, message, durationMs }: RunExit) {
  return { cause, code, signal, cleanup, message, duration_ms: durationMs };
}

export function toWireEvent(event: ViewerEvent): WireEvent {
  switch (event.type) {
    case 'phase':
      return {
        type: 'phase',
        phase: event.phase,
        ...(event.position === null ? {} : { position: event.position }),
      };
    case 'output': {
      const { stream: streamName, encoding, data } = event;
      return { type: 'output', stream: streamName, encoding, data: data.toString(encoding) };
    }
    case 'truncated':
      return { type: 'truncated', stream: event.stream, dropped_bytes: event.droppedBytes };
    case 'exit':
      return { type: 'exit', ...toWireExit(event) };
  }
}

export function fromWireEvent(event: WireEvent): ViewerEvent {
  switch (event.type) {
    case 'phase':
      return { type: 'phase', phase: event.phase, position: event.position ?? null };
    case 'output': {
      const { stream: streamName, encoding, data } = event;
      return { type: 'output', stream: streamName, encoding, data: Buffer.from(data, encoding) };
    }
    case 'truncated':
      return { type: 'truncated', stream: event.stream, droppedBytes: event.dropped_bytes };
    case 'exit': {
      const { duration_ms: durationMs, ...exit } = event;
      return { ...exit, durationMs };
    }
  }
}

/** One server-sent event. JSON contains no raw line breaks, so no data can end the event early. */
export function toSseFrame(runId: string, { seq, event }: NumberedEvent): string {
  const { type, ...rest } = toWireEvent(event);
  return `event: ${type}\nid: ${seq}\ndata: ${JSON.stringify({ run_id: runId, seq, type, ...rest })}\n\n`;
}
