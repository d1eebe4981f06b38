import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { decryptKey, parsePool, type StoredKey } from '../stored-key.ts';
import { findCanaryKeyIndex } from './canary.ts';
import type { KeyAdminDeps } from './deps.ts';
import { countOtherSecrets, type OtherSecretCounts } from './other-secrets.ts';
import { listVaultRecords, type ListedRecord } from './list-records.ts';

/** What the vault holds, in numbers. */
export interface KeyCounts {
  records: number;
  /** Records that name no owner. The app refuses them, and their keys count as misplaced. */
  withoutOwner: number;
  /** All stored keys, also undecryptable ones. */
  keys: number;
  /** How many each key of the ring decrypts, in the order of ENCRYPTION_KEY. */
  byRingKey: number[];
  /** No key of the ring decrypts them, or they were altered. */
  undecryptable: number;
  /** They decrypt, but were encrypted for another owner, provider, id, endpoint or expiry. */
  misplaced: number;
  /** Misplaced keys that are not under the first key. */
  misplacedUnderOlderKey: number;
  /** Values that are not stored keys, e.g. edited by hand. */
  unreadable: number;
  /** Values that repeat an id of their pool. They count as keys too; the next write drops them. */
  duplicatedIds: number;
}

export interface StoredKeyState {
  state: 'in_place' | 'misplaced' | 'undecryptable';
  /** The index of the ring key that decrypts it, from 0. */
  ringIndex: number | undefined;
}

export interface KeyCheckReport extends KeyCounts {
  /** Encrypted texts outside the vault, by kind. */
  otherSecrets: readonly OtherSecretCounts[];
  /** The index of the ring key that decrypts the canary, from 0; undefined when the app would refuse to start. */
  canaryKeyIndex: number | undefined;
}

/** Reads all vault records and all encrypted texts outside the vault. Changes nothing. */
export async function checkKeys(
  deps: Pick<KeyAdminDeps, 'database' | 'vaultKeycloak' | 'vaultLocation' | 'keyring' | 'otherSecrets'>,
): Promise<KeyCheckReport> {
  const counts = await countKeys(deps);
  const otherSecrets = await countOtherSecrets(deps);
  return {
    ...counts,
    otherSecrets,
    canaryKeyIndex: await findCanaryKeyIndex(deps.database, deps.keyring),
  };
}

export async function countKeys(
  deps: Pick<KeyAdminDeps, 'vaultKeycloak' | 'vaultLocation' | 'keyring'>,
): Promise<KeyCounts> {
  const counts: KeyCounts = {
    records: 0,
    withoutOwner: 0,
    keys: 0,
    byRingKey: Array.from({ length: deps.keyring.size }, () => 0),
    undecryptable: 0,
    misplaced: 0,
    misplacedUnderOlderKey: 0,
    unreadable: 0,
    duplicatedIds: 0,
  };
  for await (const record of listVaultRecords(deps.vaultKeycloak, deps.vaultLocation.recordIsUser)) {
    countRecord(counts, deps.keyring, record);
  }
  return counts;
}

function countRecord(counts: KeyCounts, keyring: Keyring, { owner, values }: ListedRecord): void {
  counts.records += 1;
  if (owner === undefined) counts.withoutOwner += 1;
  for (const [provider, list] of values) {
    const pool = parsePool(list);
    const superseded = parseEach(pool.superseded);
    counts.unreadable += pool.unreadable.length;
    counts.duplicatedIds += superseded.length;
    for (const key of [...pool.keys, ...superseded]) {
      const { state, ringIndex } = checkStoredKey(keyring, owner, provider, key);
      counts.keys += 1;
      if (ringIndex !== undefined) counts.byRingKey[ringIndex] = (counts.byRingKey[ringIndex] ?? 0) + 1;
      if (state === 'undecryptable') counts.undecryptable += 1;
      if (state === 'misplaced') counts.misplaced += 1;
      if (state === 'misplaced' && ringIndex !== 0) counts.misplacedUnderOlderKey += 1;
    }
  }
}

/** Parses values one by one, so that values with the same id are all kept. */
export function parseEach(values: readonly string[]): StoredKey[] {
  return values.flatMap((value) => parsePool([value]).keys);
}

/** @param owner undefined for a record that names none: all its keys are misplaced. */
export function checkStoredKey(
  keyring: Keyring,
  owner: Owner | undefined,
  provider: string,
  key: StoredKey,
): StoredKeyState {
  const ringIndex = keyring.findKeyIndex(key.token);
  if (ringIndex === undefined) return { state: 'undecryptable', ringIndex };
  const isInPlace = owner !== undefined && decryptKey(keyring, { owner, provider }, key) !== undefined;
  return { state: isInPlace ? 'in_place' : 'misplaced', ringIndex };
}
