import { z } from 'zod';
import { isLockTimeout, type Database, type Sql } from '../lib/postgres/database.ts';
import { UnfitError } from '../lib/errors.ts';

/** Where vault records are stored. */
export interface VaultLocation {
  realm: string;
  /** True with one realm for users and keys: the vault record of a user is that Keycloak user. */
  recordIsUser: boolean;
}

const LocationRow = z.object({ realm: z.string(), record_is_user: z.boolean() });
const HasRecordsRow = z.object({ has_records: z.boolean() });

/**
 * Compares the configured location with the stored one. In another location no owner would have keys, and the system
 * default would pay for all requests. The location is stored at the first start, and again when it changes while no
 * vault record exists.
 * @throws UnfitError for the operator, with both locations and what to do; also while `vault move` runs.
 */
export async function assertVaultLocation(database: Database, configured: VaultLocation): Promise<void> {
  const values = [configured.realm, configured.recordIsUser];
  await database.transaction(async (sql) => {
    // Concurrent starts wait here for the first one and then read its row.
    await sql.run(
      'INSERT INTO vault_place (realm, record_is_user) VALUES ($1, $2) ON CONFLICT (only_row) DO NOTHING',
      values,
    );
    const stored = await lockVaultLocation(sql);
    if (stored === undefined) throw new Error('the vault location was not stored');
    if (isSameLocation(stored, configured)) return;
    const [row] = await sql.rows(HasRecordsRow, 'SELECT has_vault_records() AS has_records');
    if (row?.has_records !== false) throw new UnfitError(mismatchMessage(stored, configured));
    await writeVaultLocation(sql, configured);
  });
}

/**
 * Reads and locks the stored location. Until the transaction ends, it cannot change and no process can start.
 * @returns undefined where no app has started yet.
 * @throws UnfitError when another process holds the lock for 5 s: a start is short, a move is long.
 */
export async function lockVaultLocation(sql: Sql): Promise<VaultLocation | undefined> {
  await sql.run("SELECT set_config('lock_timeout', '5s', true)");
  try {
    const [row] = await sql.rows(LocationRow, 'SELECT realm, record_is_user FROM vault_place FOR UPDATE');
    return row === undefined ? undefined : { realm: row.realm, recordIsUser: row.record_is_user };
  } catch (error) {
    if (!isLockTimeout(error)) throw error;
    throw new UnfitError(
      'The stored keys are being moved ("vault move"). Start again when the move has ended.',
    );
  }
}

export async function writeVaultLocation(sql: Sql, location: VaultLocation): Promise<void> {
  const values = [location.realm, location.recordIsUser];
  await sql.run('UPDATE vault_place SET realm = $1, record_is_user = $2, since = now()', values);
}

export function isSameLocation(a: VaultLocation, b: VaultLocation): boolean {
  return a.realm === b.realm && a.recordIsUser === b.recordIsUser;
}

function mismatchMessage(stored: VaultLocation, configured: VaultLocation): string {
  const remedy =
    stored.realm === configured.realm
      ? `Set KEYCLOAK_REALM back to ${stored.recordIsUser ? `"${stored.realm}"` : 'the user realm'}`
      : `Set KEYCLOAK_VAULT_REALM back to "${stored.realm}"` +
        (stored.recordIsUser ? ', which is KEYCLOAK_REALM too' : '');
  return (
    `The stored keys are in ${describeLocation(stored)}, but the configuration names ${describeLocation(configured)}. ` +
    `${remedy}, or move the records there: npm run ops -- vault move (docs/operations.md).`
  );
}

export function describeLocation({ realm, recordIsUser }: VaultLocation): string {
  return `the realm "${realm}" ${recordIsUser ? 'with the users themselves' : 'in separate vault records'}`;
}
