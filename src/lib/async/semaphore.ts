/** A fixed number of places for work that must not all be done at once. */
export interface Semaphore {
  /**
   * Waits for a place, in turn.
   * @returns what gives the place back, to be called once the work has really ended; later calls do nothing.
   * @throws the reason of `signal` when it ends first.
   */
  acquire(signal: AbortSignal): Promise<() => void>;
}

/** Makes places, all of them free. */
export function createSemaphore(count: number): Semaphore {
  const waiting = new Set<() => void>();
  let free = count;

  function release(): void {
    const [next] = waiting;
    if (next === undefined) free += 1;
    else next();
  }

  function take(): () => void {
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
        return take();
      }
      return new Promise((resolve, reject) => {
        const abort = () => {
          waiting.delete(proceed);
          reject(signal.reason as Error);
        };
        const proceed = () => {
          waiting.delete(proceed);
          signal.removeEventListener('abort', abort);
          resolve(take());
        };
        waiting.add(proceed);
        signal.addEventListener('abort', abort, { once: true });
      });
    },
  };
}
