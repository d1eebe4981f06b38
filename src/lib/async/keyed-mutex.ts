/** Limits concurrent work; waiting work starts in the order of the calls. */
export interface DeadlineSemaphore {
  /** @param deadlineMs epoch ms: work that has not started by then is rejected. */
  run<T>(deadlineMs: number, work: () => Promise<T>): Promise<T>;
}

/** Runs one piece of work per name at a time. Unused names take no memory. */
export interface KeyedMutex {
  /** @param deadlineMs as in {@link DeadlineSemaphore}. */
  run<T>(name: string, deadlineMs: number, work: () => Promise<T>): Promise<T>;
}

/** @param createTimeoutError creates the error for work that did not start in time. */
export function createDeadlineSemaphore(permits: number, createTimeoutError: () => Error): DeadlineSemaphore {
  let free = permits;
  const waiting: (() => void)[] = [];

  function acquire(deadlineMs: number): Promise<void> {
    if (free > 0) {
      free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(grant), 1);
        reject(createTimeoutError());
      }, deadlineMs - Date.now());
      const grant = () => {
        clearTimeout(timer);
        resolve();
      };
      waiting.push(grant);
    });
  }

  function release(): void {
    const next = waiting.shift();
    if (next === undefined) free += 1;
    else next();
  }

  return {
    async run(deadlineMs, work) {
      await acquire(deadlineMs);
      try {
        return await work();
      } finally {
        release();
      }
    },
  };
}

/** @param createTimeoutError as in {@link createDeadlineSemaphore}. */
export function createKeyedMutex(createTimeoutError: () => Error): KeyedMutex {
  const entries = new Map<string, { semaphore: DeadlineSemaphore; useCount: number }>();
  return {
    async run(name, deadlineMs, work) {
      const entry = entries.get(name) ?? {
        semaphore: createDeadlineSemaphore(1, createTimeoutError),
        useCount: 0,
      };
      entries.set(name, entry);
      entry.useCount += 1;
      try {
        return await entry.semaphore.run(deadlineMs, work);
      } finally {
        entry.useCount -= 1;
        if (entry.useCount === 0) entries.delete(name);
      }
    },
  };
}
