import type { ExitCause, ExitEvent, OutputStream } from '../runners/runner.ts';

/** Number of bytes of each stream. */
export type ByteCounts = Readonly<Record<OutputStream, number>>;

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
  /** From the program's start to its end; 0 when the program never started. */
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
