/** Waits that end by themselves: what does not come within `timeoutMs` fails with a sentence. */
export interface Waits {
  /** Resolves with the first value of `look` that is not undefined; looked at now and at every `changed()`. */
  waitFor<T>(look: () => T | undefined, describe: () => string): Promise<T>;
  check(): void;
  /** Fails all that still wait. */
  failAll(reason: string): void;
}

interface Waiter {
  check(): void;
  fail(reason: string): void;
}

export function createWaits(timeoutMs: number): Waits {
  const waiters = new Set<Waiter>();
  return {
    async waitFor(look, describe) {
      return new Promise((resolve, reject) => {
        const settle = (finish: () => void): void => {
          clearTimeout(timer);
          waiters.delete(waiter);
          finish();
        };
        const waiter: Waiter = {
          check() {
            const value = look();
            if (value !== undefined) {
              settle(() => {
                resolve(value);
              });
            }
          },
          fail(reason) {
            settle(() => {
              reject(new Error(`${describe()}: ${reason}`));
            });
          },
        };
        const timer = setTimeout(() => {
          waiter.fail(`did not happen within ${timeoutMs} ms`);
        }, timeoutMs);
        waiters.add(waiter);
        waiter.check();
      });
    },
    check() {
      for (const waiter of [...waiters]) waiter.check();
    },
    failAll(reason) {
      for (const waiter of [...waiters]) waiter.fail(reason);
    },
  };
}
