import { z } from 'zod';
import type { Sql } from '../lib/database.ts';
import type { Owner } from './record.ts';

const OwnerRow = z.object({ vault_id: z.string().nullable() });

/** The id of the owner's vault record, where it has been seen before. */
export async function findVaultId(sql: Sql, owner: Owner): Promise<string | null> {
  const [row] = await sql.rows(OwnerRow, 'SELECT vault_id FROM owners WHERE owner = $1', [owner]);
  return row?.vault_id ?? null;
}

/** Remembers where the owner's record lies, so that it need not be searched for. */
export async function rememberVaultId(sql: Sql, owner: Owner, vaultId: string): Promise<void> {
  await sql.run(
    `INSERT INTO owners (owner, vault_id) VALUES ($1, $2)
     ON CONFLICT (owner) DO UPDATE SET vault_id = excluded.vault_id`,
    [owner, vaultId],
  );
}

/** Makes everything that was read from the vault before count as old. */
export async function raiseGeneration(sql: Sql, owner: Owner): Promise<void> {
  await sql.run(
    `INSERT INTO owners (owner, generation) VALUES ($1, 1)
     ON CONFLICT (owner) DO UPDATE SET generation = owners.generation + 1`,
    [owner],
  );
}
