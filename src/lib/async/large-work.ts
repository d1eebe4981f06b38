import { setImmediate } from 'node:timers/promises';

/** Parsing as many bytes takes about a millisecond. */
const MIN_LARGE_BYTES = 256 * 1024;

let last = Promise.resolve();

/**
 * Waits before work that takes long in one piece, such as parsing a large body. Each such piece of this process gets an
 * iteration of the event loop of its own, so that other requests proceed between large bodies that arrive together.
 * Resolves at once for small ones.
 */
export async function waitForLargeWork(bytes: number): Promise<void> {
  if (bytes < MIN_LARGE_BYTES) return;
  last = last.then(() => setImmediate());
  await last;
}
