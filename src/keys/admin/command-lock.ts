import { z } from 'zod';
import type { Database } from '../../lib/postgres/database.ts';
import { UnfitError } from '../../lib/errors.ts';

const LockRow = z.object({ is_ours: z.boolean() });
const LOCK_NAME = 'ops-center command that writes stored keys';

/**
 * Runs a command that writes stored keys while no other such command runs: `vault move` would lose concurrent writes.
 * The lock belongs to a connection that stays open meanwhile, so that it ends with the process.
 * @throws UnfitError when another such command runs.
 */
export function withCommandLock<T>(database: Database, work: () => Promise<T>): Promise<T> {
  return database.withConnection(async (connection) => {
    const [row] = await connection.rows(
      LockRow,
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS is_ours',
      [LOCK_NAME],
    );
    if (row?.is_ours !== true) throw new UnfitError(ANOTHER_COMMAND);
    try {
      return await work();
    } finally {
      // If the connection was lost, Postgres has freed the lock already.
      await connection.run('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [LOCK_NAME]).catch(() => 0);
    }
  });
}

const ANOTHER_COMMAND =
  'Another command is writing stored keys ("keys rotate", "keys import-legacy", "vault purge" or "vault move"). ' +
  'Run this command again when the other one has ended.';
