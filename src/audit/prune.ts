import type { Log } from '../lib/log.ts';
import { createDatabase } from '../lib/postgres/database.ts';

/** Rows of one statement, so that none takes long. */
const BATCH_SIZE = 10_000;

/**
 * Deletes audit events that are older than `days`. The app's role cannot delete them.
 * @param ownerUrl connection string of the role that owns the schema.
 * @returns how many were deleted.
 */
export async function pruneAuditEvents(ownerUrl: string, days: number, log: Log): Promise<number> {
  const database = createDatabase({ url: ownerUrl, max: 1, applicationName: 'ops-center audit prune', log });
  try {
    let total = 0;
    for (let deleted = BATCH_SIZE; deleted === BATCH_SIZE; total += deleted)
      deleted = await database.run(
        `DELETE FROM audit_events WHERE id IN (
           SELECT id FROM audit_events WHERE time < now() - make_interval(days => $1) ORDER BY id LIMIT $2)`,
        [days, BATCH_SIZE],
      );
    return total;
  } finally {
    await database.close();
  }
}
