import { z } from 'zod';
import type { Database } from '../../lib/database.ts';
import { UnfitError } from '../../lib/errors.ts';
import type { Keyring } from '../../lib/keyring.ts';

/**
 * One sealed text in the database. A process whose ENCRYPTION_KEY does not open it would find every stored key
 * undecryptable, and seal new ones so that the right key does not open them.
 */
const CANARY = JSON.stringify({ v: 1, kind: 'encryption_canary' });

const CanaryRow = z.object({ token: z.string() });
const Answer = z.object({ has_records: z.boolean() });

const MISFIT =
  'ENCRYPTION_KEY does not fit the stored keys: they were sealed under another key. Put that key behind the ' +
  'new one, separated by a comma (ENCRYPTION_KEY=new,old), then run "npm run ops -- keys rotate". Where it is ' +
  'lost for good, see "Losing an encryption key" in docs/operations.md.';

/**
 * Lets a process start, or a command seal, only with a key ring that fits what is stored. The canary is made at
 * the first start, and made anew where it does not fit while nobody has a vault record.
 * @throws UnfitError in words for the operator.
 */
export async function checkCanary(database: Database, keyring: Keyring): Promise<void> {
  await database.transaction(async (sql) => {
    // Of processes that start at once, all but one wait here and then read what that one wrote.
    await sql.run('INSERT INTO encryption_canary (token) VALUES ($1) ON CONFLICT (only_row) DO NOTHING', [
      keyring.seal(CANARY),
    ]);
    const [row] = await sql.rows(CanaryRow, 'SELECT token FROM encryption_canary FOR UPDATE');
    if (row === undefined) throw new Error('the canary was not stored');
    if (keyring.open(row.token) === CANARY) return;
    const [answer] = await sql.rows(Answer, 'SELECT has_vault_records() AS has_records');
    if (answer?.has_records !== false) throw new UnfitError(MISFIT);
    await sql.run('UPDATE encryption_canary SET token = $1, since = now()', [keyring.seal(CANARY)]);
  });
}

/** Which key of the ring opens the canary, from 0; undefined when none does or there is none yet. */
export async function canaryIndex(database: Database, keyring: Keyring): Promise<number | undefined> {
  const [row] = await database.rows(CanaryRow, 'SELECT token FROM encryption_canary');
  return row === undefined ? undefined : keyring.ringIndex(row.token);
}

/** Seals the canary under the first key: from now on a start needs that one, and no older key. */
export async function resealCanary(database: Database, keyring: Keyring): Promise<void> {
  await database.run(
    `INSERT INTO encryption_canary (token) VALUES ($1)
     ON CONFLICT (only_row) DO UPDATE SET token = excluded.token, since = now()`,
    [keyring.seal(CANARY)],
  );
}
