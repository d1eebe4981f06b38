/** Waits for conditions. A condition that is not met within `timeoutMs` fails with a description. */
export interface Waits {
  /** Resolves with the first defined value of `find`, which is called now and at every `check()`. */
  waitFor<T>(find: () => T | undefined, describe: () => string): Promise<T>;
  check(): void;
  /** Fails all pending waits. */
  failAll(reason: string): void;
}

interface Waiter {
  check(): void;
  fail(reason: string): void;
}

export function createWaits(timeoutMs: number): Waits {
  const waiters = new Set<Waiter>();
  return {
    async waitFor(find, describe) {
      return new Promise((resolve, reject) => {
        const settle = (finish: () => void): void => {
          clearTimeout(timer);
          waiters.delete(waiter);
          finish();
        };
        const waiter: Waiter = {
          check() {
            const value = find();
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
