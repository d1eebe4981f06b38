/** A fixed number of places for work that must not all be done at once. */
export interface Places {
  /**
   * Waits for a place, in turn.
   * @returns what gives the place back, to be called once the work has really ended; later calls do nothing.
   * @throws the reason of `signal` when it ends first.
   */
  take(signal: AbortSignal): Promise<() => void>;
}

/** Makes places, all of them free. */
export function createPlaces(count: number): Places {
  const waiting = new Set<() => void>();
  let free = count;

  function leave(): void {
    const [next] = waiting;
    if (next === undefined) free += 1;
    else next();
  }

  function take(): () => void {
    let isTaken = true;
    return () => {
      if (isTaken) leave();
      isTaken = false;
    };
  }

  return {
    async take(signal) {
      signal.throwIfAborted();
      if (free > 0) {
        free -= 1;
        return take();
      }
      return new Promise((resolve, reject) => {
        const giveUp = () => {
          waiting.delete(goOn);
          reject(signal.reason as Error);
        };
        const goOn = () => {
          waiting.delete(goOn);
          signal.removeEventListener('abort', giveUp);
          resolve(take());
        };
        waiting.add(goOn);
        signal.addEventListener('abort', giveUp, { once: true });
      });
    },
  };
}
