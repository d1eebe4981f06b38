import { setImmediate, setTimeout as delay } from 'node:timers/promises';

/** Parsing as many bytes takes about a millisecond. */
const MIN_LARGE_BYTES = 256 * 1024;
/** The pause after a piece of work, as a multiple of its time. */
const PAUSE_FACTOR = 2;
const MAX_PAUSE_MS = 250;

/**
 * Waits before work that takes long in one piece, such as parsing a large body. The pieces of a queue are done one after
 * the other, with a pause after each, so that together they take at most a third of the time: a request needs several
 * iterations of the event loop, and would wait for a piece in each. Resolves at once for small work, and when no other
 * piece waits. The caller does the work at once, without awaiting anything.
 */
export function createLargeWorkQueue(): (bytes: number) => Promise<void> {
  /** Resolves when the next piece may begin. */
  let next = Promise.resolve();
  return async (bytes) => {
    if (bytes < MIN_LARGE_BYTES) return;
    const turn = next;
    next = turn.then(async () => {
      const startMs = performance.now();
      // The work is done before.
      await setImmediate();
      await delay(Math.min((performance.now() - startMs) * PAUSE_FACTOR, MAX_PAUSE_MS));
    });
    await turn;
  };
}

/** The queue of this process, see {@link createLargeWorkQueue}. */
export const waitForLargeWork = createLargeWorkQueue();
