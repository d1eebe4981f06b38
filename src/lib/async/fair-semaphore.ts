/** Limits the number of concurrent pieces of work, of which each user has at most one. */
export interface FairSemaphore {
  /**
   * Waits for a permit. Users take turns: one who waits many times is served once per turn.
   * @returns a function that releases the permit. Call it when the work has ended; later calls have no effect.
   * @throws the reason of `signal` when it aborts first.
   */
  acquire(user: string, signal?: AbortSignal): Promise<() => void>;
}

export function createFairSemaphore(count: number): FairSemaphore {
  /** Users who wait, the next one first, with their calls in order. */
  const waiting = new Map<string, Set<() => void>>();
  const active = new Set<string>();

  function startNext(): void {
    for (const [user, calls] of waiting) {
      if (active.size >= count) return;
      const [proceed] = calls;
      if (active.has(user) || proceed === undefined) continue;
      active.add(user);
      remove(user, proceed);
      proceed();
    }
  }

  function remove(user: string, proceed: () => void): void {
    const calls = waiting.get(user);
    calls?.delete(proceed);
    if (calls?.size === 0) waiting.delete(user);
  }

  function createRelease(user: string): () => void {
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      active.delete(user);
      // To the end: the other users come first.
      const calls = waiting.get(user);
      if (waiting.delete(user) && calls !== undefined) waiting.set(user, calls);
      startNext();
    };
  }

  return {
    async acquire(user, signal) {
      signal?.throwIfAborted();
      const { promise, resolve, reject } = Promise.withResolvers<() => void>();
      const proceed = () => {
        signal?.removeEventListener('abort', abort);
        resolve(createRelease(user));
      };
      const abort = () => {
        remove(user, proceed);
        reject(signal?.reason as Error);
      };
      signal?.addEventListener('abort', abort, { once: true });
      const calls = waiting.get(user) ?? new Set();
      waiting.set(user, calls.add(proceed));
      startNext();
      return promise;
    },
  };
}
