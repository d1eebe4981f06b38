import { isLockTimeout, type DatabaseConnection, type Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Owner } from '../lib/owner.ts';
import { createKeyedMutex, createDeadlineSemaphore } from '../lib/async/keyed-mutex.ts';

export interface OwnerLockOptions {
  /** A pool of its own, so that writers who wait cannot take the connections that requests need. */
  database: Database;
  /** How many owners this process writes for at once: the size of that pool. */
  slots: number;
  /** Waiting and working in all. */
  timeoutMs: number;
}

/** What the holder of the lock works with. */
export interface HeldOwnerLock {
  /** The connection that holds the lock: the holder's SQL goes here, and fails if the lock was lost. */
  connection: DatabaseConnection;
  /** Epoch ms: the work must be over by then, and the caller answered. */
  deadlineMs: number;
}

/** One writer per owner, in all processes that share the database. */
export interface OwnerLock {
  /** @throws AppError `busy` (503) when the turn does not come in time; `database_unavailable`. */
  runExclusive<T>(owner: Owner, work: (runExclusive: HeldOwnerLock) => Promise<T>): Promise<T>;
}

/** A statement's own time limit in the pool is 15 s, so one wait for the lock stays below it. */
const MAX_WAIT_MS = 10_000;

/** Keycloak has neither conditional nor partial updates: two writers at once lose one another's changes. */
export function createOwnerLock(options: OwnerLockOptions): OwnerLock {
  const slots = createDeadlineSemaphore(options.slots, keysBusy);
  const turns = createKeyedMutex(keysBusy);

  return {
    runExclusive(owner, work) {
      const deadlineMs = Date.now() + options.timeoutMs;
      return turns.run(owner, deadlineMs, () =>
        slots.run(deadlineMs, () =>
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
    // Work that is done stays done when only the unlocking failed: the connection is then thrown away,
    // and Postgres frees the lock with it.
    if (outcome.value === undefined) throw error;
  }
  if (outcome.value === undefined) throw new Error('the work under the lock did not run');
  return outcome.value.result;
}

/** A session's lock outlives the transaction that asks for it, while the time limit set here does not. */
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

/** 503 for a write whose turn did not come, or whose change did not settle. */
export function keysBusy(cause?: unknown): AppError {
  return new AppError('busy', 'Other changes to these keys are still being written. Try again shortly.', {
    headers: { 'retry-after': '5' },
    cause,
  });
}
