import type { Keyring } from '../../lib/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { openKey, readPool, type StoredKey } from '../record.ts';
import { canaryIndex } from './canary.ts';
import type { CustodyDeps } from './deps.ts';
import { tallyElsewhere, type SealedTally } from './elsewhere.ts';
import { listRecords, type ListedRecord } from './listing.ts';

/** What lies in the vault, in numbers. */
export interface KeyTally {
  records: number;
  /** Records that name no owner; the app refuses them, and their keys count as misplaced. */
  withoutOwner: number;
  /** All values that are keys: those under a key of the ring, and the undecryptable ones. */
  keys: number;
  /** How many each key of the ring opens, in the order of ENCRYPTION_KEY. */
  byRingKey: number[];
  /** Opened by no key of the ring, or altered. */
  undecryptable: number;
  /** They open, but were sealed for another owner, provider, id, endpoint or expiry than where they lie. */
  misplaced: number;
  /** Of the misplaced ones those that are not under the first key. */
  misplacedUnderOlder: number;
  /** Values in the place of keys that are none, for example edited by hand. */
  notKeys: number;
  /** Values that repeat an id of their pool. They count as keys too; the next write drops them. */
  duplicatedIds: number;
}

/** How one stored key stands. */
export interface Standing {
  state: 'in_place' | 'misplaced' | 'undecryptable';
  /** Which key of the ring opens it, from 0. */
  ringIndex: number | undefined;
}

export interface KeyCheck extends KeyTally {
  /** What lies sealed outside the vault, kind by kind. */
  elsewhere: readonly SealedTally[];
  /** Which key of the ring fits the canary, from 0; undefined when the app would refuse to start. */
  canary: number | undefined;
}

/** Walks all vault records, and all that lies sealed elsewhere, and changes nothing. */
export async function checkKeys(
  deps: Pick<CustodyDeps, 'database' | 'records' | 'place' | 'keyring' | 'sealedElsewhere'>,
): Promise<KeyCheck> {
  const tally = await tallyKeys(deps);
  const elsewhere = await tallyElsewhere(deps);
  return { ...tally, elsewhere, canary: await canaryIndex(deps.database, deps.keyring) };
}

export async function tallyKeys(deps: Pick<CustodyDeps, 'records' | 'place' | 'keyring'>): Promise<KeyTally> {
  const tally: KeyTally = {
    records: 0,
    withoutOwner: 0,
    keys: 0,
    byRingKey: Array.from({ length: deps.keyring.size }, () => 0),
    undecryptable: 0,
    misplaced: 0,
    misplacedUnderOlder: 0,
    notKeys: 0,
    duplicatedIds: 0,
  };
  for await (const record of listRecords(deps.records, deps.place.recordIsUser)) {
    count(tally, deps.keyring, record);
  }
  return tally;
}

function count(tally: KeyTally, keyring: Keyring, { owner, values }: ListedRecord): void {
  tally.records += 1;
  if (owner === undefined) tally.withoutOwner += 1;
  for (const [provider, list] of values) {
    const pool = readPool(list);
    const superseded = readEach(pool.superseded);
    tally.notKeys += pool.foreign.length;
    tally.duplicatedIds += superseded.length;
    for (const key of [...pool.keys, ...superseded]) {
      const { state, ringIndex } = standingOf(keyring, owner, provider, key);
      tally.keys += 1;
      if (ringIndex !== undefined) tally.byRingKey[ringIndex] = (tally.byRingKey[ringIndex] ?? 0) + 1;
      if (state === 'undecryptable') tally.undecryptable += 1;
      if (state === 'misplaced') tally.misplaced += 1;
      if (state === 'misplaced' && ringIndex !== 0) tally.misplacedUnderOlder += 1;
    }
  }
}

/** Values one by one, so that none takes the place of another of its id. */
export function readEach(values: readonly string[]): StoredKey[] {
  return values.flatMap((value) => readPool([value]).keys);
}

/** @param owner undefined for a record that names none: nothing in it is where it belongs. */
export function standingOf(
  keyring: Keyring,
  owner: Owner | undefined,
  provider: string,
  key: StoredKey,
): Standing {
  const ringIndex = keyring.ringIndex(key.token);
  if (ringIndex === undefined) return { state: 'undecryptable', ringIndex };
  const isInPlace = owner !== undefined && openKey(keyring, { owner, provider }, key) !== undefined;
  return { state: isInPlace ? 'in_place' : 'misplaced', ringIndex };
}
