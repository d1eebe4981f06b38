import { withSessionLock } from '../lib/postgres/advisory-lock.ts';
import type { DatabaseConnection, Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Owner } from '../lib/owner.ts';
import { createKeyedMutex } from '../lib/async/keyed-mutex.ts';
import { createSemaphore, runWithPermit } from '../lib/async/semaphore.ts';

export interface OwnerLockOptions {
  /** A separate pool, so that waiting writers cannot take the connections that requests need. */
  database: Database;
  /** How many owners this process writes for at the same time: the size of that pool. */
  slots: number;
  /** For waiting and work together. */
  timeoutMs: number;
}

/** What work under the lock receives. */
export interface HeldOwnerLock {
  /** The connection that holds the lock. The work runs its SQL on it, which fails if the lock was lost. */
  connection: DatabaseConnection;
  /** Epoch ms. The work must have ended by then. */
  deadlineMs: number;
}

/** Allows one writer per owner among all processes that share the database. */
export interface OwnerLock {
  /** @throws AppError `busy` (503) when the lock is not free in time; `database_unavailable`. */
  runExclusive<T>(owner: Owner, work: (held: HeldOwnerLock) => Promise<T>): Promise<T>;
}

/** Keycloak has neither conditional nor partial updates: concurrent writers would overwrite each other's changes. */
export function createOwnerLock(options: OwnerLockOptions): OwnerLock {
  const slots = createSemaphore(options.slots);
  const mutex = createKeyedMutex(keysBusy);

  return {
    runExclusive(owner, work) {
      const deadlineMs = Date.now() + options.timeoutMs;
      const lock = { name: `keys ${owner}`, deadlineMs, createBusyError: keysBusy };
      return mutex.run(owner, deadlineMs, () =>
        runWithPermit(slots, deadlineMs, keysBusy, () =>
          withSessionLock(options.database, lock, (connection) => work({ connection, deadlineMs })),
        ),
      );
    },
  };
}

/** 503 for a write that did not get the lock in time, or that was overwritten on every attempt. */
export function keysBusy(cause?: unknown): AppError {
  return new AppError('busy', 'Other changes to these keys are still being written. Try again shortly.', {
    headers: { 'retry-after': '5' },
    cause,
  });
}
