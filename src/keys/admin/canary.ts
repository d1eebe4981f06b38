import { z } from 'zod';
import type { Database, Sql } from '../../lib/postgres/database.ts';
import { EncryptionKeyError } from '../../lib/errors.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import { parsePool } from '../stored-key.ts';
import type { KeyAdminDeps } from './deps.ts';
import { listVaultRecords } from './list-records.ts';

/**
 * One encrypted text in the database. A process whose ENCRYPTION_KEY does not decrypt it could not decrypt any stored
 * key, and would encrypt new keys so that the right ENCRYPTION_KEY does not decrypt them.
 */
const CANARY = JSON.stringify({ v: 1, kind: 'encryption_canary' });

const CanaryRow = z.object({
  token: z.string(),
  /** The fingerprint of the encrypting key; null in rows from before the column existed. */
  sealing_key: z.string().nullable(),
  /** Fingerprints of keys that a rotation has replaced. */
  replaced_keys: z.array(z.string()),
});
const HasDataRow = z.object({ has_data: z.boolean() });

const SELECT_CANARY = 'SELECT token, sealing_key, replaced_keys FROM encryption_canary';

const KEYRING_MISMATCH =
  'ENCRYPTION_KEY does not fit the stored keys: they were encrypted under another key. Put that key after ' +
  'the new one, separated by a comma (ENCRYPTION_KEY=new,old), then run "npm run ops -- keys rotate". If that ' +
  'key is lost, see "Losing an encryption key" in docs/operations.md.';

const FIRST_KEY_REPLACED =
  'The first key of ENCRYPTION_KEY no longer encrypts: "keys rotate" has replaced it, and keys that this process ' +
  'stores would be lost with it. Put the new key first (ENCRYPTION_KEY=new,old). To encrypt with this key again, ' +
  'run "npm run ops -- keys rotate" with this list first.';

/** How many users of the vault are read to find out whether the ring decrypts its keys. */
const MAX_USERS = 1_000;

type CanaryDeps = Pick<KeyAdminDeps, 'database' | 'keyring' | 'vaultKeycloak' | 'vaultLocation'>;

/**
 * Lets a process start, or a command encrypt, only with a keyring that fits the stored data:
 *
 * - The ring decrypts the canary. The canary is created at the first start. A canary that does not fit is replaced while
 *   no vault record, server or run exists. Both require that the vault holds no keys that the ring does not decrypt,
 *   since only the database may be new.
 * - The first key has not been replaced. When `keys rotate` begins, its first key becomes the encrypting key. The
 *   previous one and the other keys of its ring are replaced from then on. A process with one of these in front
 *   (`old,new`, or `old` alone) would store keys that are lost when the old key is removed. Before a rotation no key
 *   is replaced, so that processes can go from `old` over `old,new` to `new,old` one by one, in any order. A ring does
 *   not show which of two keys is newer; only the command does. A rotation also lets a replaced key encrypt again.
 * @throws EncryptionKeyError for the operator; AppError `keycloak_unavailable`.
 */
export async function assertCanary(deps: CanaryDeps): Promise<void> {
  await assertKeyringFits(deps);
  const [row] = await deps.database.rows(CanaryRow, SELECT_CANARY);
  if (row !== undefined && isFirstKeyReplaced(row, deps.keyring))
    throw new EncryptionKeyError(FIRST_KEY_REPLACED);
}

async function assertKeyringFits(deps: CanaryDeps): Promise<void> {
  const { database, keyring } = deps;
  const [found] = await database.rows(CanaryRow, SELECT_CANARY);
  // Keycloak is read before the row is locked, since other processes wait for that lock.
  if (found === undefined || keyring.decrypt(found.token) !== CANARY) await assertVaultDecryptable(deps);
  const encrypted = [keyring.encrypt(CANARY), keyring.fingerprints[0]];
  await database.transaction(async (sql) => {
    // Concurrent starts wait here for the first one and then read its row.
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
    if (dataRow?.has_data !== false) throw new EncryptionKeyError(KEYRING_MISMATCH);
    await sql.run(
      "UPDATE encryption_canary SET token = $1, sealing_key = $2, replaced_keys = '{}', since = now()",
      encrypted,
    );
  });
}

/** The database may be new while the vault is not. One key that decrypts shows that the ring fits the vault. */
async function assertVaultDecryptable({ vaultKeycloak, vaultLocation, keyring }: CanaryDeps): Promise<void> {
  let undecryptable = 0;
  for await (const { values } of listVaultRecords(vaultKeycloak, vaultLocation.recordIsUser, MAX_USERS)) {
    const keys = [...values.values()].flatMap((list) => parsePool(list).keys);
    if (keys.some(({ token }) => keyring.findKeyIndex(token) !== undefined)) return;
    undecryptable += keys.length;
  }
  if (undecryptable > 0) throw new EncryptionKeyError(KEYRING_MISMATCH);
}

/** Only the encrypting key ever encrypts the canary. */
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
 * Makes the first key of the ring the encrypting key. From now on no process can start with an older key in front.
 * @param acceptLoss continues where the ring does not fit.
 * @throws EncryptionKeyError where the ring does not fit, unless `acceptLoss` is set.
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
 * The index of the ring key that decrypts the canary, from 0. Undefined when a start would be refused: no key decrypts
 * it, there is no canary yet, or the first key has been replaced.
 */
export async function findCanaryKeyIndex(database: Database, keyring: Keyring): Promise<number | undefined> {
  const [row] = await database.rows(CanaryRow, SELECT_CANARY);
  return row === undefined || isFirstKeyReplaced(row, keyring) ? undefined : keyring.findKeyIndex(row.token);
}

/** Encrypts the canary under the first key. From now on a start needs that key and no older one. */
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
