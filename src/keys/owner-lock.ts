import { isLockTimeout, type DatabaseConnection, type Database } from '../lib/postgres/database.ts';
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

/** Statements in the pool time out after 15 s, so one wait for the lock stays below that. */
const MAX_WAIT_MS = 10_000;

/** Keycloak has neither conditional nor partial updates: concurrent writers would overwrite each other's changes. */
export function createOwnerLock(options: OwnerLockOptions): OwnerLock {
  const slots = createSemaphore(options.slots);
  const mutex = createKeyedMutex(keysBusy);

  return {
    runExclusive(owner, work) {
      const deadlineMs = Date.now() + options.timeoutMs;
      return mutex.run(owner, deadlineMs, () =>
        runWithPermit(slots, deadlineMs, keysBusy, () =>
          withAdvisoryLock(options.database, owner, deadlineMs, (connection) =>
            work({ connection, deadlineMs }),
          ),
        ),
      );
    },
  };
}

async function withAdvisoryLock<T>(
  database: Database,
  owner: Owner,
  deadlineMs: number,
  work: (connection: DatabaseConnection) => Promise<T>,
): Promise<T> {
  const outcome: { value?: { result: T } } = {};
  try {
    await database.withConnection(async (connection) => {
      await acquireLock(connection, owner, deadlineMs);
      try {
        outcome.value = { result: await work(connection) };
      } finally {
        await connection.run('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [lockName(owner)]);
      }
    });
  } catch (error) {
    // When only the unlock failed, the work still counts. The connection is closed, and Postgres frees the lock.
    if (outcome.value === undefined) throw error;
  }
  if (outcome.value === undefined) throw new Error('the work under the lock did not run');
  return outcome.value.result;
}

/** A session lock outlasts the transaction that acquires it; the timeout set here ends with the transaction. */
async function acquireLock(connection: DatabaseConnection, owner: Owner, deadlineMs: number): Promise<void> {
  for (;;) {
    const waitMs = Math.min(deadlineMs - Date.now(), MAX_WAIT_MS);
    if (waitMs <= 0) throw keysBusy();
    try {
      await connection.transaction(async (sql) => {
        await sql.run("SELECT set_config('lock_timeout', $1, true)", [`${Math.ceil(waitMs)}ms`]);
        await sql.run('SELECT pg_advisory_lock(hashtextextended($1, 0))', [lockName(owner)]);
      });
      return;
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
    }
  }
}

function lockName(owner: Owner): string {
  return `keys ${owner}`;
}

/** 503 for a write that did not get the lock in time, or that was overwritten on every attempt. */
export function keysBusy(cause?: unknown): AppError {
  return new AppError('busy', 'Other changes to these keys are still being written. Try again shortly.', {
    headers: { 'retry-after': '5' },
    cause,
  });
}
