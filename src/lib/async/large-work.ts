import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { createFairSemaphore } from './fair-semaphore.ts';

/** Parsing as many bytes takes about a millisecond. */
const MIN_LARGE_BYTES = 256 * 1024;
/** The pause after a piece of work, as a multiple of its time. */
const PAUSE_FACTOR = 2;
const MAX_PAUSE_MS = 250;

/**
 * Waits before work that takes long in one piece, such as parsing a large body. The caller does the work at once,
 * without awaiting anything. Resolves at once for small work, and when no other piece waits.
 * @param user users take turns, so that the many pieces of one delay a piece of another by one piece at most.
 * @throws the reason of `signal` when it aborts first.
 */
export type WaitForLargeWork = (user: string, bytes: number, signal?: AbortSignal) => Promise<void>;

/**
 * The pieces of a queue are done one after the other, with a pause after each, so that together they take at most a third
 * of the time: a request needs several iterations of the event loop, and would wait for a piece in each.
 */
export function createLargeWorkQueue(): WaitForLargeWork {
  const semaphore = createFairSemaphore(1);
  return async (user, bytes, signal) => {
    if (bytes < MIN_LARGE_BYTES) return;
    const release = await semaphore.acquire(user, signal);
    void pauseAfterWork().then(release);
  };
}

async function pauseAfterWork(): Promise<void> {
  const startMs = performance.now();
  // The work is done before.
  await setImmediate();
  await delay(Math.min((performance.now() - startMs) * PAUSE_FACTOR, MAX_PAUSE_MS));
}

/** The queue of this process, see {@link createLargeWorkQueue}. */
export const waitForLargeWork = createLargeWorkQueue();
