import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

/** NOTIFY channel for owners whose keys have changed; the payload is the owner. */
export const OWNERS_CHANNEL = 'ops_center_owners';

const VaultIndexRow = z.object({
  vault_id: z.string().nullable(),
  generation: z.coerce.number(),
  is_being_written: z.boolean(),
});

export interface VaultIndexEntry {
  /** The id of the owner's vault record; null until it was found once. */
  vaultId: string | null;
  /** Raised by every change. What was read under another generation is outdated. */
  generation: number;
  /** A write is in progress: what is read now may be outdated and must not be cached. */
  isBeingWritten: boolean;
}

const EMPTY_ENTRY: VaultIndexEntry = { vaultId: null, generation: 0, isBeingWritten: false };

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

/** Stores the id of the owner's record, so that it need not be searched. */
export async function writeVaultId(sql: Sql, owner: Owner, vaultId: string): Promise<void> {
  await sql.run(
    `INSERT INTO owners (owner, vault_id) VALUES ($1, $2)
     ON CONFLICT (owner) DO UPDATE SET vault_id = excluded.vault_id`,
    [owner, vaultId],
  );
}

/**
 * Marks the start of a write to the owner's record. Earlier reads are outdated, and until {@link endVaultWrite} reads are
 * not cached. The mark of a crashed writer expires after one minute, three times as long as a write may take.
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

/** Marks the end of a write, successful or not. */
export async function endVaultWrite(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('UPDATE owners SET generation = generation + 1, writing_until = NULL WHERE owner = $1', [
    owner,
  ]);
  await notifyOwnerChanged(sql, owner);
}

/** Makes all processes invalidate the owner in their caches when the transaction commits. */
export async function notifyOwnerChanged(sql: Sql, owner: Owner): Promise<void> {
  await sql.run('SELECT pg_notify($1, $2)', [OWNERS_CHANNEL, owner]);
}

const RemovedRow = z.object({ owner: OwnerText.nullable() });

/**
 * For a vault record that an administrator deleted in Keycloak: its owner has no keys any more.
 * @returns the owner of the record, if it had one.
 */
export async function unlinkDeletedRecord(database: Database, recordId: string): Promise<Owner | undefined> {
  return database.transaction(async (sql) => {
    const [row] = await sql.rows(RemovedRow, 'SELECT forget_vault_record($1) AS owner', [recordId]);
    const owner = row?.owner ?? undefined;
    if (owner !== undefined) await notifyOwnerChanged(sql, owner);
    return owner;
  });
}
