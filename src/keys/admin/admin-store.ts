import { z } from 'zod';
import type { Sql } from '../../lib/postgres/database.ts';
import type { Owner } from '../../lib/owner.ts';

const CountRow = z.object({ count: z.coerce.number() });

/** Forgets what is known of an owner whose record is gone: the facts of all keys, and where the record was. */
export async function deleteOwnerStatus(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('DELETE FROM provider_key_facts WHERE owner = $1', [owner]);
  await sql.run('UPDATE owners SET vault_id = NULL WHERE owner = $1', [owner]);
}

/**
 * Says where an owner's record lies after a move, and that what was read before is old. In the caller's
 * transaction, which may speak for many owners one after another.
 * @param vaultId null for an owner who has no record there.
 */
export async function setOwnerVaultId(sql: Sql, owner: Owner, vaultId: string | null): Promise<void> {
  await sql.run("SELECT set_config('ops_center.owner', $1, true)", [owner]);
  await sql.run(
    `INSERT INTO owners (owner, vault_id, generation) VALUES ($1, $2, 1)
     ON CONFLICT (owner) DO UPDATE SET vault_id = excluded.vault_id, generation = owners.generation + 1`,
    [owner, vaultId],
  );
}

/** How many connections app processes hold on this database. Commands have another name. */
export async function countAppConnections(sql: Pick<Sql, 'rows'>): Promise<number> {
  const [row] = await sql.rows(
    CountRow,
    `SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'ops-center%'`,
  );
  return row?.count ?? 0;
}
