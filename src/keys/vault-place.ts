import { z } from 'zod';
import type { Database } from '../lib/database.ts';
import { UnfitError } from '../lib/errors.ts';

/** Where the owners' vault records lie. */
export interface VaultPlace {
  realm: string;
  /** True where a person's record is the person's own user: the realm of the people is the vault's too. */
  recordIsUser: boolean;
}

const PlaceRow = z.object({ realm: z.string(), record_is_user: z.boolean() });
const Answer = z.object({ has_records: z.boolean() });

/**
 * Compares where the configuration says that the vault is with where it was when keys were stored. Looked for
 * in another place, everybody's keys would read as none, and the system would pay for all. The place is
 * written down at the first start, and again when it changes while nobody has a record.
 * @throws Error in words for the operator, naming both places and what to do.
 */
export async function checkVaultPlace(database: Database, configured: VaultPlace): Promise<void> {
  const values = [configured.realm, configured.recordIsUser];
  await database.transaction(async (sql) => {
    // Of processes that start at once, all but one wait here and then read what that one wrote.
    await sql.run(
      'INSERT INTO vault_place (realm, record_is_user) VALUES ($1, $2) ON CONFLICT (only_row) DO NOTHING',
      values,
    );
    const [row] = await sql.rows(PlaceRow, 'SELECT realm, record_is_user FROM vault_place FOR UPDATE');
    if (row === undefined) throw new Error('the place of the vault was not stored');
    const stored = { realm: row.realm, recordIsUser: row.record_is_user };
    if (stored.realm === configured.realm && stored.recordIsUser === configured.recordIsUser) return;
    const [answer] = await sql.rows(Answer, 'SELECT has_vault_records() AS has_records');
    if (answer?.has_records !== false) throw new UnfitError(refusal(stored, configured));
    await sql.run('UPDATE vault_place SET realm = $1, record_is_user = $2, since = now()', values);
  });
}

function refusal(stored: VaultPlace, configured: VaultPlace): string {
  const todo =
    stored.realm === configured.realm
      ? `Set KEYCLOAK_REALM back to ${stored.recordIsUser ? `"${stored.realm}"` : 'the realm of the people'}`
      : `Set KEYCLOAK_VAULT_REALM back to "${stored.realm}"` +
        (stored.recordIsUser ? ', which is KEYCLOAK_REALM too' : '');
  return (
    `The stored keys lie in ${describe(stored)}, but the configuration says ${describe(configured)}. ` +
    `${todo}. Moving the records comes with "vault move".`
  );
}

function describe({ realm, recordIsUser }: VaultPlace): string {
  return `the realm "${realm}" ${recordIsUser ? 'with the people themselves' : 'in records of their own'}`;
}
