import { z } from 'zod';
import type { Database, Sql } from '../../lib/postgres/database.ts';
import { UnfitError } from '../../lib/errors.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import { parsePool } from '../stored-key.ts';
import type { KeyAdminDeps } from './deps.ts';
import { listVaultRecords } from './list-records.ts';

/**
 * One sealed text in the database. A process whose ENCRYPTION_KEY does not open it would find every stored key
 * undecryptable, and seal new ones so that the right key does not open them.
 */
const CANARY = JSON.stringify({ v: 1, kind: 'encryption_canary' });

const CanaryRow = z.object({
  token: z.string(),
  /** The fingerprint of the key that seals; null in rows of before it was kept. */
  sealing_key: z.string().nullable(),
  /** Fingerprints of keys that a rotation has taken the place of. */
  replaced_keys: z.array(z.string()),
});
const HasDataRow = z.object({ has_data: z.boolean() });

const SELECT_CANARY = 'SELECT token, sealing_key, replaced_keys FROM encryption_canary';

const KEYRING_MISMATCH =
  'ENCRYPTION_KEY does not fit the stored keys: they were sealed under another key. Put that key behind the ' +
  'new one, separated by a comma (ENCRYPTION_KEY=new,old), then run "npm run ops -- keys rotate". Where it is ' +
  'lost for good, see "Losing an encryption key" in docs/operations.md.';

const FIRST_KEY_REPLACED =
  'The first key of ENCRYPTION_KEY seals no more: "keys rotate" has put another one in its place, and what this ' +
  'process stored would be lost with the old one. Put the new key first (ENCRYPTION_KEY=new,old). If this key ' +
  'is to seal after all, run "npm run ops -- keys rotate" with this list before.';

/** How many users of the vault are looked at to tell whether its keys are ours. */
const MAX_USERS = 1_000;

type CanaryDeps = Pick<KeyAdminDeps, 'database' | 'keyring' | 'vaultKeycloak' | 'vaultLocation'>;

/**
 * Lets a process start, or a command seal, only with a key ring that fits what is stored:
 *
 * - The ring opens the canary. It is made at the first start, and made anew where it does not fit while nobody has
 *   a vault record, a server or a run; in both cases only when the vault holds no keys that the ring does not open, since it is the
 *   database that may be new.
 * - The first key has not been replaced. When `keys rotate` begins, its first key becomes the sealing key; the one
 *   before it, and the others of its ring, are replaced from then on. A process with one of these in front
 *   (`old,new`, or `old` alone) would store keys that are lost when the old key is taken away. Before a rotation
 *   nothing is replaced, so that processes can go from `old` over `old,new` to `new,old` one by one, in any order.
 *   Which of two keys is the newer cannot be told from a ring; only the order to rotate says so. It is also what
 *   lets a replaced key seal again.
 * @throws UnfitError in words for the operator; AppError `keycloak_unavailable`.
 */
export async function assertCanary(deps: CanaryDeps): Promise<void> {
  await assertKeyringFits(deps);
  const [row] = await deps.database.rows(CanaryRow, SELECT_CANARY);
  if (row !== undefined && isFirstKeyReplaced(row, deps.keyring)) throw new UnfitError(FIRST_KEY_REPLACED);
}

async function assertKeyringFits(deps: CanaryDeps): Promise<void> {
  const { database, keyring } = deps;
  const [found] = await database.rows(CanaryRow, SELECT_CANARY);
  // Keycloak is asked before the row is locked: other processes wait for that lock.
  if (found === undefined || keyring.decrypt(found.token) !== CANARY) await assertVaultDecryptable(deps);
  const encrypted = [keyring.encrypt(CANARY), keyring.fingerprints[0]];
  await database.transaction(async (sql) => {
    // Of processes that start at once, all but one wait here and then read what that one wrote.
    await sql.run(
      'INSERT INTO encryption_canary (token, sealing_key) VALUES ($1, $2) ON CONFLICT (only_row) DO NOTHING',
      encrypted,
    );
    const [row] = await sql.rows(CanaryRow, `${SELECT_CANARY} FOR UPDATE`);
    if (row === undefined) throw new Error('the canary was not stored');
    if (keyring.decrypt(row.token) === CANARY) {
      if (row.sealing_key === null) await writeEncryptingKey(sql, keyring, row.token);
      return;
    }
    const [dataRow] = await sql.rows(HasDataRow, 'SELECT has_sealed_data() AS has_data');
    if (dataRow?.has_data !== false) throw new UnfitError(KEYRING_MISMATCH);
    await sql.run(
      "UPDATE encryption_canary SET token = $1, sealing_key = $2, replaced_keys = '{}', since = now()",
      encrypted,
    );
  });
}

/** The database may be new or lost while the vault is not. One key that opens shows that the vault is ours. */
async function assertVaultDecryptable({
  vaultKeycloak: records,
  vaultLocation: place,
  keyring,
}: CanaryDeps): Promise<void> {
  let undecryptable = 0;
  for await (const { values } of listVaultRecords(records, place.recordIsUser, MAX_USERS)) {
    const keys = [...values.values()].flatMap((list) => parsePool(list).keys);
    if (keys.some(({ token }) => keyring.findKeyIndex(token) !== undefined)) return;
    undecryptable += keys.length;
  }
  if (undecryptable > 0) throw new UnfitError(KEYRING_MISMATCH);
}

/** Only a key that seals has ever sealed the canary. */
async function writeEncryptingKey(sql: Sql, keyring: Keyring, token: string): Promise<void> {
  const fingerprint = keyring.fingerprints[keyring.findKeyIndex(token) ?? 0];
  await sql.run('UPDATE encryption_canary SET sealing_key = $1', [fingerprint]);
}

function isFirstKeyReplaced(
  row: z.output<typeof CanaryRow>,
  { fingerprints: [first = ''] }: Keyring,
): boolean {
  return row.replaced_keys.includes(first);
}

/**
 * From now on the first key of the ring seals, and no process may start with an older one in front.
 * @param acceptLoss goes on where the ring does not fit.
 * @throws UnfitError where it does not fit otherwise.
 */
export async function beginRotation(deps: CanaryDeps, acceptLoss: boolean): Promise<void> {
  if (!acceptLoss) await assertKeyringFits(deps);
  await markOthersReplaced(deps.database, deps.keyring);
}

async function markOthersReplaced(sql: Pick<Sql, 'run'>, { fingerprints }: Keyring): Promise<void> {
  await sql.run(
    `UPDATE encryption_canary SET sealing_key = $1, replaced_keys = ARRAY(
       SELECT DISTINCT key FROM unnest(array_append(replaced_keys, sealing_key) || $2::text[]) AS key
       WHERE key <> $1)`,
    [fingerprints[0], fingerprints.slice(1)],
  );
}

/**
 * Which key of the ring opens the canary, from 0; undefined when a start would be refused: none does, there is
 * none yet, or the first key has been replaced.
 */
export async function findCanaryKeyIndex(database: Database, keyring: Keyring): Promise<number | undefined> {
  const [row] = await database.rows(CanaryRow, SELECT_CANARY);
  return row === undefined || isFirstKeyReplaced(row, keyring) ? undefined : keyring.findKeyIndex(row.token);
}

/** Seals the canary under the first key: from now on a start needs that one, and no older key. */
export async function reencryptCanary(database: Database, keyring: Keyring): Promise<void> {
  await database.transaction(async (sql) => {
    await sql.run(
      `INSERT INTO encryption_canary (token) VALUES ($1)
       ON CONFLICT (only_row) DO UPDATE SET token = excluded.token, since = now()`,
      [keyring.encrypt(CANARY)],
    );
    await markOthersReplaced(sql, keyring);
  });
}
