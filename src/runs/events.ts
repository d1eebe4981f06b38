import type { ExitCause, ExitEvent, Stream } from '../runners/runner.ts';

/** How many bytes of each stream. */
export type Tally = Readonly<Record<Stream, number>>;

export const NO_BYTES: Tally = { stdout: 0, stderr: 0 };

export type Phase = 'queued' | 'preparing' | 'started';

export interface Output {
  type: 'output';
  stream: Stream;
  /** Whole characters where it is text. */
  encoding: 'utf8' | 'base64';
  data: Buffer;
}

export interface RunExit extends ExitEvent {
  /** From the program's start to its end; 0 when it never started. */
  durationMs: number;
}

/** What happens in a run, as its viewers are told. */
export type RunNews =
  | { type: 'phase'; phase: Phase; position: number | null }
  | Output
  | { type: 'truncated'; stream: Stream; droppedBytes: number }
  | RunExit;

/** News with its number, from 1 in each run. */
export interface NumberedNews {
  seq: number;
  news: RunNews;
}

/** The exit of a run that no runner told the end of. */
export function exitWithout(
  cause: ExitCause,
  message: string | null,
  cleanup: ExitEvent['cleanup'] = 'verified',
): RunExit {
  return { type: 'exit', cause, code: null, signal: null, cleanup, message, durationMs: 0 };
}

/** The bytes that news carries. */
export function tallyOf(news: RunNews): Tally {
  return news.type === 'output' ? { ...NO_BYTES, [news.stream]: news.data.length } : NO_BYTES;
}

export function addTallies(a: Tally, b: Tally): Tally {
  return { stdout: a.stdout + b.stdout, stderr: a.stderr + b.stderr };
}
