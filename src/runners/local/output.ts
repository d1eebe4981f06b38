import type { Readable } from 'node:stream';
import type { RunEvent, OutputStream } from '../runner.ts';

/**
 * Reads both streams as they come, in turns. Neither is read ahead of the reader by more than its buffer, so
 * that a program waits that writes faster than it is read.
 */
export async function* readSandboxOutput(
  streams: Record<OutputStream, Readable>,
): AsyncGenerator<RunEvent, void> {
  const names: readonly OutputStream[] = ['stdout', 'stderr'];
  let wake = (): void => undefined;
  for (const name of names)
    for (const sign of ['readable', 'end', 'close']) streams[name].on(sign, () => wake());
  for (;;) {
    const pieces = names.map((stream) => ({ stream, data: streams[stream].read() as Buffer | null }));
    for (const { stream, data } of pieces) if (data !== null) yield { type: 'output', stream, data };
    if (pieces.some(({ data }) => data !== null)) continue;
    if (names.every((name) => streams[name].readableEnded || streams[name].destroyed)) return;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}
