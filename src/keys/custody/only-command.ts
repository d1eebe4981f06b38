import { z } from 'zod';
import type { Database } from '../../lib/database.ts';
import { UnfitError } from '../../lib/errors.ts';

const Answer = z.object({ is_ours: z.boolean() });
const NAME = 'ops-center command that writes stored keys';

/**
 * Runs a command that writes stored keys while no other one does: `vault move` would lose what another writes
 * meanwhile. The lock belongs to a connection that is held all the while, so that it ends with the process.
 * @throws UnfitError in words when another one runs.
 */
export function asOnlyCommand<T>(database: Database, work: () => Promise<T>): Promise<T> {
  return database.connection(async (connection) => {
    const [answer] = await connection.rows(
      Answer,
      'SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS is_ours',
      [NAME],
    );
    if (answer?.is_ours !== true) throw new UnfitError(ANOTHER);
    try {
      return await work();
    } finally {
      // Where the connection was lost, Postgres has freed the lock already.
      await connection.run('SELECT pg_advisory_unlock(hashtextextended($1, 0))', [NAME]).catch(() => 0);
    }
  });
}

const ANOTHER =
  'Another command is writing stored keys ("keys rotate", "keys import-legacy", "vault purge" or "vault move"). ' +
  'Run this one again when that is over.';
