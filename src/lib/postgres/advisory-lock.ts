import { z } from 'zod';
import { isLockTimeout, type Database, type DatabaseConnection, type Sql } from './database.ts';

/** A lock that belongs to one connection and outlasts its transactions. */
export interface SessionLock {
  name: string;
  /** Epoch ms until which to wait for it. Without it, one attempt is made. */
  deadlineMs?: number;
  /** Creates the error for a lock that is not free in time. */
  createBusyError: () => Error;
}

/** Statements time out after 15 s, so one wait for the lock stays below that. */
const MAX_WAIT_MS = 10_000;
const TryLockRow = z.object({ is_acquired: z.boolean() });

/** Waits for the lock and holds it until the transaction ends. */
export async function lockUntilCommit(sql: Sql, name: string): Promise<void> {
  await sql.run('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [name]);
}

/**
 * Runs `work` while one connection of `database` holds the lock. The lock ends with the connection, also when the
 * process is killed.
 * @param work receives that connection. SQL on it fails if the lock was lost.
 */
export async function withSessionLock<T>(
  database: Database,
  lock: SessionLock,
  work: (connection: DatabaseConnection) => Promise<T>,
): Promise<T> {
  const outcome: { result?: { value: T }; failure?: { error: unknown } } = {};
  try {
    await database.withConnection(async (connection) => {
      await acquire(connection, lock);
      try {
        outcome.result = { value: await work(connection) };
      } catch (error) {
        outcome.failure = { error };
        throw error;
      } finally {
        await connection.run('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [lock.name]);
      }
    });
  } catch (error) {
    // When only the unlock failed, the work still counts. The connection is closed, and Postgres frees the lock.
    if (outcome.result === undefined) throw outcome.failure === undefined ? error : outcome.failure.error;
  }
  if (outcome.result === undefined) throw new Error('the work under the lock did not run');
  return outcome.result.value;
}

async function acquire(connection: DatabaseConnection, lock: SessionLock): Promise<void> {
  const { name, deadlineMs, createBusyError } = lock;
  const isAcquired =
    deadlineMs === undefined
      ? await tryLock(connection, name)
      : await waitForLock(connection, name, deadlineMs);
  if (!isAcquired) throw createBusyError();
}

async function tryLock(connection: DatabaseConnection, name: string): Promise<boolean> {
  const statement = 'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS is_acquired';
  const [row] = await connection.rows(TryLockRow, statement, [name]);
  return row?.is_acquired === true;
}

/** A session lock outlasts the transaction that acquires it; the timeout set here ends with the transaction. */
async function waitForLock(
  connection: DatabaseConnection,
  name: string,
  deadlineMs: number,
): Promise<boolean> {
  for (;;) {
    const waitMs = Math.min(deadlineMs - Date.now(), MAX_WAIT_MS);
    if (waitMs <= 0) return false;
    try {
      await connection.transaction(async (sql) => {
        await sql.run("SELECT set_config('lock_timeout', $1, true)", [`${Math.ceil(waitMs)}ms`]);
        await sql.run('SELECT pg_advisory_lock(hashtextextended($1, 0))', [name]);
      });
      return true;
    } catch (error) {
      if (!isLockTimeout(error)) throw error;
    }
  }
}
