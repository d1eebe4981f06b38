import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { changePool, type PoolWrite } from '../pool-writer.ts';
import { parsePool, type StoredKey, type StoredPool } from '../stored-key.ts';
import { beginRotation, findCanaryKeyIndex, reencryptCanary } from './canary.ts';
import { parseEach, checkStoredKey, countKeys, type KeyCounts } from './check.ts';
import type { KeyAdminDeps } from './deps.ts';
import {
  countUnderOlderKeys,
  reencryptOtherSecrets,
  countOtherSecrets,
  type OtherSecretCounts,
} from './other-secrets.ts';
import { listVaultRecords, type ListedRecord } from './list-records.ts';
import { withCommandLock } from './command-lock.ts';

export interface RotateOptions {
  /**
   * Continues where the canary does not decrypt. Re-encrypts it although an older key would decrypt more keys, or no
   * key decrypts anything. What the first key does not decrypt is given up.
   */
  acceptLoss: boolean;
  onProgress(done: RotationProgress): void;
}

export interface RotationProgress {
  /** Vault records read. */
  records: number;
  /** Re-encrypted keys. */
  reencrypted: number;
  /** Re-encrypted texts outside the vault. */
  reencryptedSecrets: number;
}

export interface RotationReport {
  /** Keys re-encrypted by this command. */
  reencrypted: number;
  /** Texts outside the vault re-encrypted by this command. */
  reencryptedSecrets: number;
  /** Pools that could not be written, as `<owner>, <provider>`, with the error code. */
  failed: readonly { pool: string; why: string }[];
  /** Keys that were not changed, as `<owner>, <provider>/<id>`. */
  skipped: readonly { key: string; why: 'misplaced' | 'undecryptable' }[];
  /** What the vault holds after the rotation. */
  counts: KeyCounts;
  /** Texts outside the vault after the rotation, by kind. */
  otherSecrets: readonly OtherSecretCounts[];
  /** True when the ring decrypts nothing of what is stored. */
  decryptsNothing: boolean;
  /** True when nothing needs an older key any more: the first key is enough to start. */
  isFinished: boolean;
}

const ACTOR = 'system:keys-rotate';
/** After this many consecutive failures the command ends, because the cause is not one owner. */
const MAX_CONSECUTIVE_FAILURES = 5;

/**
 * Re-encrypts under the first key every key that is under an older one, owner by owner under the owner's lock, while
 * apps serve and write. Then re-encrypts the texts outside the vault. It stores no progress: after an interruption it
 * continues, because the tokens show what is done.
 * @throws UnfitError when the ring does not fit the stored keys, or another command is writing; AppError when
 *   Keycloak or the database is unavailable.
 */
export function rotateKeys(deps: KeyAdminDeps, options: RotateOptions): Promise<RotationReport> {
  return withCommandLock(deps.database, () => rotateAll(deps, options));
}

async function rotateAll(deps: KeyAdminDeps, options: RotateOptions): Promise<RotationReport> {
  await beginRotation(deps, options.acceptLoss);
  const { reencrypted, failed, skipped, records } = await reencryptAll(deps, options);
  const reencryptedSecrets = await reencryptOtherSecrets(deps, (count) => {
    options.onProgress({ records, reencrypted, reencryptedSecrets: count });
  });
  // Counted again, since a process that has only the old key may have written meanwhile.
  const counts = await countKeys(deps);
  const otherSecrets = await countOtherSecrets(deps);
  const underOlder = counts.byRingKey.slice(1).reduce((sum, each) => sum + each, 0);
  const needed =
    underOlder - (options.acceptLoss ? counts.misplacedUnderOlderKey : 0) + countUnderOlderKeys(otherSecrets);
  const decryptsNothing = isNothingDecryptable(counts, otherSecrets);
  // A ring that decrypts nothing is more likely the wrong one than one that nothing needs.
  const isFinished = failed.length === 0 && needed === 0 && (!decryptsNothing || options.acceptLoss);
  if (isFinished && (await findCanaryKeyIndex(deps.database, deps.keyring)) !== 0) {
    await reencryptCanary(deps.database, deps.keyring);
  }
  return {
    reencrypted,
    reencryptedSecrets,
    failed,
    skipped,
    counts,
    otherSecrets,
    decryptsNothing,
    isFinished,
  };
}

function isNothingDecryptable(counts: KeyCounts, otherSecrets: readonly OtherSecretCounts[]): boolean {
  const stored = counts.keys + otherSecrets.reduce((sum, { texts }) => sum + texts, 0);
  const undecryptable = [counts, ...otherSecrets].reduce((sum, each) => sum + each.undecryptable, 0);
  return stored > 0 && undecryptable === stored;
}

type VaultRotation = Pick<RotationReport, 'reencrypted' | 'failed' | 'skipped'> & { records: number };

async function reencryptAll(deps: KeyAdminDeps, options: RotateOptions): Promise<VaultRotation> {
  const requestId = `rotate-${randomId()}`;
  const failed: RotationReport['failed'][number][] = [];
  const skipped: RotationReport['skipped'][number][] = [];
  let [records, reencrypted, consecutiveFailures] = [0, 0, 0];

  async function reencryptPool(
    record: ListedRecord,
    provider: string,
    values: readonly string[],
  ): Promise<void> {
    const { owner } = record;
    skipped.push(...listSkipped(deps.keyring, record, provider, values));
    if (owner === undefined || !needsReencryption(deps.keyring, owner, provider, parsePool(values))) return;
    try {
      reencrypted += await writeReencrypted(deps, record, { owner, provider, requestId });
      consecutiveFailures = 0;
    } catch (error) {
      consecutiveFailures += 1;
      if (!isAppError(error) || consecutiveFailures >= MAX_CONSECUTIVE_FAILURES) throw error;
      deps.log.warn({ err: error, owner, provider }, 'keys could not be re-encrypted');
      failed.push({ pool: `${owner}, ${provider}`, why: error.code });
    }
  }

  for await (const record of listVaultRecords(deps.vaultKeycloak, deps.vaultLocation.recordIsUser)) {
    for (const [provider, values] of record.values) await reencryptPool(record, provider, values);
    records += 1;
    options.onProgress({ records, reencrypted, reencryptedSecrets: 0 });
  }
  return { reencrypted, failed, skipped, records };
}

/** @returns the number of re-encrypted keys; 0 when another process has re-encrypted the pool. */
async function writeReencrypted(
  deps: KeyAdminDeps,
  { ownerName }: ListedRecord,
  target: { owner: Owner; provider: string; requestId: string },
): Promise<number> {
  const { owner, provider } = target;
  const change = { ...target, ownerName, actor: ACTOR, action: 'key.resealed' as const };
  const edit = await changePool<PoolWrite | undefined>(deps, change, (pool, overwritten) => {
    // An overwritten write may have been stored after all, so that the pool no longer needs it.
    const earlier = overwritten?.keyIds ?? [];
    if (earlier.length === 0 && !needsReencryption(deps.keyring, owner, provider, pool)) return undefined;
    const older = pool.keys.filter((key) => isUnderOlderKey(deps.keyring, owner, provider, key));
    const values = pool.keys.map((key) =>
      older.includes(key) ? withToken(key.value, deps.keyring.reencrypt(key.token) ?? key.token) : key.value,
    );
    const keyIds = [...new Set([...earlier, ...older.map(({ id }) => id)])];
    return { values: [...values, ...pool.unreadable], keyIds };
  });
  return edit?.keyIds.length ?? 0;
}

/** Any write drops superseded values, so one under an older key also needs a write. */
function needsReencryption(keyring: Keyring, owner: Owner, provider: string, pool: StoredPool): boolean {
  return (
    pool.keys.some((key) => isUnderOlderKey(keyring, owner, provider, key)) ||
    parseEach(pool.superseded).some((key) => (keyring.findKeyIndex(key.token) ?? 0) > 0)
  );
}

function isUnderOlderKey(keyring: Keyring, owner: Owner, provider: string, key: StoredKey): boolean {
  const { state, ringIndex } = checkStoredKey(keyring, owner, provider, key);
  return state === 'in_place' && ringIndex !== 0;
}

/** Replaces the token and keeps all other members, also those that this version does not know. */
function withToken(value: string, token: string): string {
  return JSON.stringify({ ...(JSON.parse(value) as object), token });
}

function listSkipped(
  keyring: Keyring,
  { id, owner }: ListedRecord,
  provider: string,
  values: readonly string[],
): RotationReport['skipped'][number][] {
  return parsePool(values).keys.flatMap((key) => {
    const { state } = checkStoredKey(keyring, owner, provider, key);
    const name = `${owner ?? `record ${id}`}, ${provider}/${key.id}`;
    return state === 'in_place' ? [] : [{ key: name, why: state }];
  });
}
