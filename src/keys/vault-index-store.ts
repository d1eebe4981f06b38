import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

/** Where every process hears of owners whose keys have changed; the payload is the owner. */
export const OWNERS_CHANNEL = 'ops_center_owners';

const VaultIndexRow = z.object({
  vault_id: z.string().nullable(),
  generation: z.coerce.number(),
  is_being_written: z.boolean(),
});

export interface VaultIndexEntry {
  /** The id of the owner's vault record, where it has been seen before. */
  vaultId: string | null;
  /** Raised by every change; what was read under another one is old. */
  generation: number;
  /** A write is under way: what is read now may be of before it, and must not be kept. */
  isBeingWritten: boolean;
}

const EMPTY_ENTRY: VaultIndexEntry = { vaultId: null, generation: 0, isBeingWritten: false };

/** What is known of the owner's vault record. */
export async function readVaultIndex(sql: Sql, owner: Owner): Promise<VaultIndexEntry> {
  const [row] = await sql.rows(
    VaultIndexRow,
    `SELECT vault_id, generation, coalesce(writing_until > now(), false) AS is_being_written
     FROM owners WHERE owner = $1`,
    [owner],
  );
  if (row === undefined) return EMPTY_ENTRY;
  return { vaultId: row.vault_id, generation: row.generation, isBeingWritten: row.is_being_written };
}

/** Remembers where the owner's record lies, so that it need not be searched for. */
export async function writeVaultId(sql: Sql, owner: Owner, vaultId: string): Promise<void> {
  await sql.run(
    `INSERT INTO owners (owner, vault_id) VALUES ($1, $2)
     ON CONFLICT (owner) DO UPDATE SET vault_id = excluded.vault_id`,
    [owner, vaultId],
  );
}

/**
 * Says that a write to the owner's record begins: what was read before counts as old, and until
 * {@link endVaultWrite} nothing that is read is kept. A writer that dies is over after a minute, three times as
 * long as a write may take.
 */
export async function beginVaultWrite(sql: Sql, owner: Owner): Promise<void> {
  await sql.run(
    `INSERT INTO owners (owner, generation, writing_until) VALUES ($1, 1, now() + interval '1 minute')
     ON CONFLICT (owner) DO UPDATE SET
       generation = owners.generation + 1, writing_until = excluded.writing_until`,
    [owner],
  );
  await notifyOwnerChanged(sql, owner);
}

/** Says that the write is over, whatever became of it. */
export async function endVaultWrite(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('UPDATE owners SET generation = generation + 1, writing_until = NULL WHERE owner = $1', [
    owner,
  ]);
  await notifyOwnerChanged(sql, owner);
}

/** Tells all processes, when the transaction commits, that what they remember of the owner is old. */
export async function notifyOwnerChanged(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('SELECT pg_notify($1, $2)', [OWNERS_CHANNEL, owner]);
}

const RemovedRow = z.object({ owner: OwnerText.nullable() });

/**
 * An administrator has deleted a vault record in Keycloak: its owner has no keys any more.
 * @returns whose it was, if anybody's.
 */
export async function removeDeletedRecord(database: Database, recordId: string): Promise<Owner | undefined> {
  return database.transaction(async (sql) => {
    const [row] = await sql.rows(RemovedRow, 'SELECT forget_vault_record($1) AS owner', [recordId]);
    const owner = row?.owner ?? undefined;
    if (owner !== undefined) await notifyOwnerChanged(sql, owner);
    return owner;
  });
}
