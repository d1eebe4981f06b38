/** Limits the number of concurrent pieces of work. */
export interface Semaphore {
  /**
   * Waits for a free permit, in the order of the calls.
   * @returns a function that releases the permit. Call it when the work has ended; later calls have no effect.
   * @throws the reason of `signal` when it aborts first.
   */
  acquire(signal: AbortSignal): Promise<() => void>;
}

export function createSemaphore(count: number): Semaphore {
  const waiting = new Set<() => void>();
  let free = count;

  function release(): void {
    const [next] = waiting;
    if (next === undefined) free += 1;
    else next();
  }

  function createRelease(): () => void {
    let isTaken = true;
    return () => {
      if (isTaken) release();
      isTaken = false;
    };
  }

  return {
    async acquire(signal) {
      signal.throwIfAborted();
      if (free > 0) {
        free -= 1;
        return createRelease();
      }
      return new Promise((resolve, reject) => {
        const abort = () => {
          waiting.delete(proceed);
          reject(signal.reason as Error);
        };
        const proceed = () => {
          waiting.delete(proceed);
          signal.removeEventListener('abort', abort);
          resolve(createRelease());
        };
        waiting.add(proceed);
        signal.addEventListener('abort', abort, { once: true });
      });
    },
  };
}

/**
 * Runs `work` with a permit.
 * @param deadlineMs epoch ms: work that has not started by then is rejected with the error of `createTimeoutError`.
 */
export async function runWithPermit<T>(
  semaphore: Semaphore,
  deadlineMs: number,
  createTimeoutError: () => Error,
  work: () => Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(createTimeoutError()), deadlineMs - Date.now());
  const release = await semaphore.acquire(deadline.signal).finally(() => clearTimeout(timer));
  try {
    return await work();
  } finally {
    release();
  }
}
