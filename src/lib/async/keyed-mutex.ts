import { createSemaphore, runWithPermit, type Semaphore } from './semaphore.ts';

/** Runs one piece of work per name at a time. Unused names take no memory. */
export interface KeyedMutex {
  /** @param deadlineMs epoch ms: work that has not started by then is rejected. */
  run<T>(name: string, deadlineMs: number, work: () => Promise<T>): Promise<T>;
}

/** @param createTimeoutError creates the error for work that did not start in time. */
export function createKeyedMutex(createTimeoutError: () => Error): KeyedMutex {
  const entries = new Map<string, { semaphore: Semaphore; useCount: number }>();
  return {
    async run(name, deadlineMs, work) {
      const entry = entries.get(name) ?? { semaphore: createSemaphore(1), useCount: 0 };
      entries.set(name, entry);
      entry.useCount += 1;
      try {
        return await runWithPermit(entry.semaphore, deadlineMs, createTimeoutError, work);
      } finally {
        entry.useCount -= 1;
        if (entry.useCount === 0) entries.delete(name);
      }
    },
  };
}
