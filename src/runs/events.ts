import { z } from 'zod';
import type { ExitCause, ExitEvent, OutputStream } from '../runners/runner.ts';
import { ExitView } from './schema.ts';

/** Number of bytes of each stream. */
export type ByteCounts = Readonly<Record<OutputStream, number>>;

export const OUTPUT_STREAMS = ['stdout', 'stderr'] as const satisfies readonly OutputStream[];

export const NO_BYTES: ByteCounts = { stdout: 0, stderr: 0 };

export type RunPhase = 'queued' | 'preparing' | 'started';

export interface OutputEvent {
  type: 'output';
  stream: OutputStream;
  /** `utf8` when the data consists of whole characters. */
  encoding: 'utf8' | 'base64';
  data: Buffer;
}

export interface RunExit extends ExitEvent {
  /**
   * From the program's start to its end; 0 when the program never started. Of a run whose process has ended, from the
   * run's start until its end was detected.
   */
  durationMs: number;
}

/** An event of a run as viewers receive it. */
export type ViewerEvent =
  | { type: 'phase'; phase: RunPhase; position: number | null }
  | OutputEvent
  | { type: 'truncated'; stream: OutputStream; droppedBytes: number }
  | RunExit;

/** An event with its number, from 1 in each run. */
export interface NumberedEvent {
  seq: number;
  event: ViewerEvent;
}

/** The exit of a run whose program ended without an exit event from the runner, or never started. */
export function createRunExit(
  cause: ExitCause,
  message: string | null,
  cleanup: ExitEvent['cleanup'] = 'verified',
): RunExit {
  return { type: 'exit', cause, code: null, signal: null, cleanup, message, durationMs: 0 };
}

export function countOutputBytes(event: ViewerEvent): ByteCounts {
  return event.type === 'output' ? { ...NO_BYTES, [event.stream]: event.data.length } : NO_BYTES;
}

export function addByteCounts(a: ByteCounts, b: ByteCounts): ByteCounts {
  return { stdout: a.stdout + b.stdout, stderr: a.stderr + b.stderr };
}

const stream = z.enum(OUTPUT_STREAMS);

/** An event on the wire and in the stored history. */
const WireEvent = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('phase'),
    phase: z.enum(['queued', 'preparing', 'started']),
    position: z.number().int().optional(),
  }),
  z.object({ type: z.literal('output'), stream, encoding: z.enum(['utf8', 'base64']), data: z.string() }),
  z.object({ type: z.literal('truncated'), stream, dropped_bytes: z.number().int() }),
  ExitView.extend({ type: z.literal('exit') }),
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
