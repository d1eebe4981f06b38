import { z } from 'zod';
import { isLockTimeout, type Database, type Sql } from '../lib/postgres/database.ts';
import { UnfitError } from '../lib/errors.ts';

/** Where the owners' vault records lie. */
export interface VaultLocation {
  realm: string;
  /** True where a person's record is the person's own user: the realm of the people is the vault's too. */
  recordIsUser: boolean;
}

const LocationRow = z.object({ realm: z.string(), record_is_user: z.boolean() });
const HasRecordsRow = z.object({ has_records: z.boolean() });

/**
 * Compares where the configuration says that the vault is with where it was when keys were stored. Looked for
 * in another place, everybody's keys would read as none, and the system would pay for all. The place is
 * written down at the first start, and again when it changes while nobody has a record.
 * @throws UnfitError in words for the operator, naming both places and what to do; also while `vault move`
 *   is at work.
 */
export async function assertVaultLocation(database: Database, configured: VaultLocation): Promise<void> {
  const values = [configured.realm, configured.recordIsUser];
  await database.transaction(async (sql) => {
    // Of processes that start at once, all but one wait here and then read what that one wrote.
    await sql.run(
      'INSERT INTO vault_place (realm, record_is_user) VALUES ($1, $2) ON CONFLICT (only_row) DO NOTHING',
      values,
    );
    const stored = await lockVaultLocation(sql);
    if (stored === undefined) throw new Error('the place of the vault was not stored');
    if (isSameLocation(stored, configured)) return;
    const [row] = await sql.rows(HasRecordsRow, 'SELECT has_vault_records() AS has_records');
    if (row?.has_records !== false) throw new UnfitError(mismatchMessage(stored, configured));
    await writeVaultLocation(sql, configured);
  });
}

/**
 * Reads the stored place and keeps it from changing, and processes from starting, until the transaction ends.
 * @returns undefined where no app has started yet.
 * @throws UnfitError when another process keeps it: a start takes moments, a move takes long.
 */
export async function lockVaultLocation(sql: Sql): Promise<VaultLocation | undefined> {
  await sql.run("SELECT set_config('lock_timeout', '5s', true)");
  try {
    const [row] = await sql.rows(LocationRow, 'SELECT realm, record_is_user FROM vault_place FOR UPDATE');
    return row === undefined ? undefined : { realm: row.realm, recordIsUser: row.record_is_user };
  } catch (error) {
    if (!isLockTimeout(error)) throw error;
    throw new UnfitError('The stored keys are being moved ("vault move"). Start again when that is over.');
  }
}

/** Where the records lie from now on. */
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
      ? `Set KEYCLOAK_REALM back to ${stored.recordIsUser ? `"${stored.realm}"` : 'the realm of the people'}`
      : `Set KEYCLOAK_VAULT_REALM back to "${stored.realm}"` +
        (stored.recordIsUser ? ', which is KEYCLOAK_REALM too' : '');
  return (
    `The stored keys lie in ${describeLocation(stored)}, but the configuration says ${describeLocation(configured)}. ` +
    `${remedy}, or move the records there: npm run ops -- vault move (docs/operations.md).`
  );
}

/** A place in words. */
export function describeLocation({ realm, recordIsUser }: VaultLocation): string {
  return `the realm "${realm}" ${recordIsUser ? 'with the people themselves' : 'in records of their own'}`;
}
