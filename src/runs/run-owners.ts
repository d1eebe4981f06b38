import { z } from 'zod';
import type { Database } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

const RunOwnerRow = z.object({ owner: OwnerText });

/** All owners of runs, for commands that process the runs of one owner after another. */
export async function listRunOwners(database: Database): Promise<Owner[]> {
  const rows = await database.rows(RunOwnerRow, 'SELECT owners_of_runs() AS owner');
  return rows.map(({ owner }) => owner);
}

/** Deletes all runs of an owner, with their events. */
export async function deleteRunsOfOwner(database: Database, owner: Owner): Promise<void> {
  await database.withOwner(owner, (sql) => sql.run('DELETE FROM runs WHERE owner = $1', [owner]));
}
