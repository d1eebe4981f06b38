import { z } from 'zod';
import type { Sql } from '../../lib/postgres/database.ts';
import type { Owner } from '../../lib/owner.ts';

const CountRow = z.object({ count: z.coerce.number() });

/** Deletes the status of all keys, and the record id, of an owner whose vault record is gone. */
export async function clearOwnerRows(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('DELETE FROM provider_key_facts WHERE owner = $1', [owner]);
  await sql.run('UPDATE owners SET vault_id = NULL WHERE owner = $1', [owner]);
}

/**
 * Stores the id of an owner's record after a move and outdates earlier reads. Runs in the caller's transaction, which
 * may write for many owners one after another.
 * @param vaultId null for an owner without a record there.
 */
export async function setOwnerVaultId(sql: Sql, owner: Owner, vaultId: string | null): Promise<void> {
  await sql.run("SELECT set_config('ops_center.owner', $1, true)", [owner]);
  await sql.run(
    `INSERT INTO owners (owner, vault_id, generation) VALUES ($1, $2, 1)
     ON CONFLICT (owner) DO UPDATE SET vault_id = excluded.vault_id, generation = owners.generation + 1`,
    [owner, vaultId],
  );
}

/** How many connections app processes hold to this database. Commands use another application name. */
export async function countAppConnections(sql: Pick<Sql, 'rows'>): Promise<number> {
  const [row] = await sql.rows(
    CountRow,
    `SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'ops-center%'`,
  );
  return row?.count ?? 0;
}
