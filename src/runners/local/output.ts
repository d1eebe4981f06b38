import type { Readable } from 'node:stream';
import type { RunEvent, OutputStream } from '../runner.ts';

/**
 * Reads both streams alternately as data arrives. Reads ahead of the consumer by at most one stream buffer, so that
 * a program that writes faster has to wait.
 */
export async function* readSandboxOutput(
  streams: Record<OutputStream, Readable>,
): AsyncGenerator<RunEvent, void> {
  const names: readonly OutputStream[] = ['stdout', 'stderr'];
  let wake = (): void => undefined;
  for (const name of names)
    for (const event of ['readable', 'end', 'close']) streams[name].on(event, () => wake());
  for (;;) {
    const chunks = names.map((stream) => ({ stream, data: streams[stream].read() as Buffer | null }));
    for (const { stream, data } of chunks) if (data !== null) yield { type: 'output', stream, data };
    if (chunks.some(({ data }) => data !== null)) continue;
    if (names.every((name) => streams[name].readableEnded || streams[name].destroyed)) return;
    await new Promise<void>((resolve) => (wake = resolve));
  }
}
