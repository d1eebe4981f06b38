import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { createPoolWriter, type PlannedWrite, type PoolWriter } from '../pool-writer.ts';
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
   * Goes on where the canary does not open, and lets it be sealed anew although keys are left that an older
   * key would open, or none that any key does: what the first key does not open is given up.
   */
  acceptLoss: boolean;
  onProgress(done: RotationProgress): void;
}

export interface RotationProgress {
  /** Vault records seen. */
  records: number;
  /** Keys sealed anew. */
  reencrypted: number;
  /** Texts outside the vault sealed anew. */
  reencryptedSecrets: number;
}

export interface RotationReport {
  /** Keys, by this run. */
  reencrypted: number;
  /** Texts outside the vault, by this run. */
  reencryptedSecrets: number;
  /** Pools that could not be written, as `<owner>, <provider>`, with why. */
  failed: readonly { pool: string; why: string }[];
  /** Keys that were left as they are, as `<owner>, <provider>/<id>`. */
  skipped: readonly { key: string; why: 'misplaced' | 'undecryptable' }[];
  /** What lies in the vault after it. */
  counts: KeyCounts;
  /** What lies outside the vault after it, kind by kind. */
  otherSecrets: readonly OtherSecretCounts[];
  /** True when no key of the ring opens anything of all that is stored. */
  decryptsNothing: boolean;
  /** True when nothing needs an older key any more: a start takes the first key alone. */
  isFinished: boolean;
}

const ACTOR = 'system:keys-rotate';
/** So many failures one after another are no matter of single owners. */
const MAX_CONSECUTIVE_FAILURES = 5;
/** Refuses a change that is none: others have been at the same work. */
const NOTHING_TO_DO = new Error('nothing to seal anew');

/**
 * Seals every key that lies under an older key of the ring under the first one, owner by owner under the
 * owner's lock, while apps serve and write; then what lies sealed outside the vault, text by text. It keeps no account of its own: a run that was cut off goes on where
 * it stood, because what is done is seen in the tokens.
 * @throws UnfitError when the ring does not fit the stored keys, or another command is writing; AppError when Keycloak or the database is away.
 */
export function rotateKeys(deps: KeyAdminDeps, options: RotateOptions): Promise<RotationReport> {
  return withCommandLock(deps.database, () => rotateAll(deps, options));
}

async function rotateAll(deps: KeyAdminDeps, options: RotateOptions): Promise<RotationReport> {
  await beginRotation(deps, options.acceptLoss);
  const { reencrypted: resealed, failed, skipped: left, records } = await reencryptAll(deps, options);
  const resealedElsewhere = await reencryptOtherSecrets(deps, (count) => {
    options.onProgress({ records, reencrypted: resealed, reencryptedSecrets: count });
  });
  // Counted anew: what was written meanwhile by a process that has the old key alone must not be missed.
  const tally = await countKeys(deps);
  const elsewhere = await countOtherSecrets(deps);
  const underOlder = tally.byRingKey.slice(1).reduce((sum, each) => sum + each, 0);
  const needed =
    underOlder - (options.acceptLoss ? tally.misplacedUnderOlderKey : 0) + countUnderOlderKeys(elsewhere);
  const opensNothing = isNothingDecryptable(tally, elsewhere);
  // Such a ring is rather the wrong one than one that is needed no more.
  const isFinished = failed.length === 0 && needed === 0 && (!opensNothing || options.acceptLoss);
  if (isFinished && (await findCanaryKeyIndex(deps.database, deps.keyring)) !== 0) {
    await reencryptCanary(deps.database, deps.keyring);
  }
  return {
    reencrypted: resealed,
    reencryptedSecrets: resealedElsewhere,
    failed,
    skipped: left,
    counts: tally,
    otherSecrets: elsewhere,
    decryptsNothing: opensNothing,
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
  const writer = createPoolWriter(deps);
  const requestId = `rotate-${randomId()}`;
  const failed: RotationReport['failed'][number][] = [];
  const left: RotationReport['skipped'][number][] = [];
  let [records, resealed, failuresInARow] = [0, 0, 0];

  async function reencryptPool(
    record: ListedRecord,
    provider: string,
    values: readonly string[],
  ): Promise<void> {
    const { owner } = record;
    left.push(...listSkipped(deps.keyring, record, provider, values));
    if (owner === undefined || !needsReencryption(deps.keyring, owner, provider, parsePool(values))) return;
    try {
      resealed += await writeReencrypted(writer, deps.keyring, record, { owner, provider, requestId });
      failuresInARow = 0;
    } catch (error) {
      failuresInARow += 1;
      if (!isAppError(error) || failuresInARow >= MAX_CONSECUTIVE_FAILURES) throw error;
      deps.log.warn({ err: error, owner, provider }, 'keys could not be sealed anew');
      failed.push({ pool: `${owner}, ${provider}`, why: error.code });
    }
  }

  for await (const record of listVaultRecords(deps.vaultKeycloak, deps.vaultLocation.recordIsUser)) {
    for (const [provider, values] of record.values) await reencryptPool(record, provider, values);
    records += 1;
    options.onProgress({ records, reencrypted: resealed, reencryptedSecrets: 0 });
  }
  return { reencrypted: resealed, failed, skipped: left, records };
}

/** @returns how many keys were sealed anew. */
async function writeReencrypted(
  writer: PoolWriter,
  keyring: Keyring,
  { ownerName }: ListedRecord,
  pool: { owner: Owner; provider: string; requestId: string },
): Promise<number> {
  try {
    const keyIds = await writer.write({
      ...pool,
      ownerName,
      actor: ACTOR,
      action: 'key.resealed',
      plan: createReencryptionPlan(keyring, pool.owner, pool.provider),
    });
    return keyIds.length;
  } catch (error) {
    if (error === NOTHING_TO_DO) return 0;
    throw error;
  }
}

/** What is sealed anew is kept over attempts: an earlier one may have held after all. */
function createReencryptionPlan(
  keyring: Keyring,
  owner: Owner,
  provider: string,
): (pool: StoredPool) => PlannedWrite {
  const reencrypted = new Set<string>();
  return (pool) => {
    if (reencrypted.size === 0 && !needsReencryption(keyring, owner, provider, pool)) throw NOTHING_TO_DO;
    const values = pool.keys.map((key) => {
      if (!isUnderOlderKey(keyring, owner, provider, key)) return key.value;
      reencrypted.add(key.id);
      return withToken(key.value, keyring.reencrypt(key.token) ?? key.token);
    });
    return { values: [...values, ...pool.unreadable], keyIds: [...reencrypted] };
  };
}

/** Superseded values are dropped by any write, so one under an older key is reason enough for a write. */
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

/** The value with another token and all else as it was, members that this version does not know included. */
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
