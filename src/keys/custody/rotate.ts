import { isAppError } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { Keyring } from '../../lib/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { createPoolWriter, type PoolPlan, type PoolWriter } from '../pool-writer.ts';
import { readPool, type StoredKey, type StoredPool } from '../record.ts';
import { beginRotation, canaryIndex, resealCanary } from './canary.ts';
import { readEach, standingOf, tallyKeys, type KeyTally } from './check.ts';
import type { CustodyDeps } from './deps.ts';
import { countUnderOlder, resealElsewhere, tallyElsewhere, type SealedTally } from './elsewhere.ts';
import { listRecords, type ListedRecord } from './listing.ts';
import { asOnlyCommand } from './only-command.ts';

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
  resealed: number;
  /** Texts outside the vault sealed anew. */
  resealedElsewhere: number;
}

export interface RotationReport {
  /** Keys, by this run. */
  resealed: number;
  /** Texts outside the vault, by this run. */
  resealedElsewhere: number;
  /** Pools that could not be written, as `<owner>, <provider>`, with why. */
  failed: readonly { pool: string; why: string }[];
  /** Keys that were left as they are, as `<owner>, <provider>/<id>`. */
  left: readonly { key: string; why: 'misplaced' | 'undecryptable' }[];
  /** What lies in the vault after it. */
  tally: KeyTally;
  /** What lies outside the vault after it, kind by kind. */
  elsewhere: readonly SealedTally[];
  /** True when no key of the ring opens anything of all that is stored. */
  opensNothing: boolean;
  /** True when nothing needs an older key any more: a start takes the first key alone. */
  isFinished: boolean;
}

const ACTOR = 'system:keys-rotate';
/** So many failures one after another are no matter of single owners. */
const MAX_FAILURES_IN_A_ROW = 5;
/** Refuses a change that is none: others have been at the same work. */
const NOTHING_TO_DO = new Error('nothing to seal anew');

/**
 * Seals every key that lies under an older key of the ring under the first one, owner by owner under the
 * owner's lock, while apps serve and write; then what lies sealed outside the vault, text by text. It keeps no account of its own: a run that was cut off goes on where
 * it stood, because what is done is seen in the tokens.
 * @throws UnfitError when the ring does not fit the stored keys, or another command is writing; AppError when Keycloak or the database is away.
 */
export function rotateKeys(deps: CustodyDeps, options: RotateOptions): Promise<RotationReport> {
  return asOnlyCommand(deps.database, () => rotateAll(deps, options));
}

async function rotateAll(deps: CustodyDeps, options: RotateOptions): Promise<RotationReport> {
  await beginRotation(deps, options.acceptLoss);
  const { resealed, failed, left, records } = await resealAll(deps, options);
  const resealedElsewhere = await resealElsewhere(deps, (count) => {
    options.onProgress({ records, resealed, resealedElsewhere: count });
  });
  // Counted anew: what was written meanwhile by a process that has the old key alone must not be missed.
  const tally = await tallyKeys(deps);
  const elsewhere = await tallyElsewhere(deps);
  const underOlder = tally.byRingKey.slice(1).reduce((sum, each) => sum + each, 0);
  const needed =
    underOlder - (options.acceptLoss ? tally.misplacedUnderOlder : 0) + countUnderOlder(elsewhere);
  const opensNothing = isForeign(tally, elsewhere);
  // Such a ring is rather the wrong one than one that is needed no more.
  const isFinished = failed.length === 0 && needed === 0 && (!opensNothing || options.acceptLoss);
  if (isFinished && (await canaryIndex(deps.database, deps.keyring)) !== 0) {
    await resealCanary(deps.database, deps.keyring);
  }
  return { resealed, resealedElsewhere, failed, left, tally, elsewhere, opensNothing, isFinished };
}

function isForeign(tally: KeyTally, elsewhere: readonly SealedTally[]): boolean {
  const stored = tally.keys + elsewhere.reduce((sum, { texts }) => sum + texts, 0);
  const undecryptable = [tally, ...elsewhere].reduce((sum, each) => sum + each.undecryptable, 0);
  return stored > 0 && undecryptable === stored;
}

type Progress = Pick<RotationReport, 'resealed' | 'failed' | 'left'> & { records: number };

async function resealAll(deps: CustodyDeps, options: RotateOptions): Promise<Progress> {
  const writer = createPoolWriter(deps);
  const requestId = `rotate-${randomId()}`;
  const failed: RotationReport['failed'][number][] = [];
  const left: RotationReport['left'][number][] = [];
  let [records, resealed, failuresInARow] = [0, 0, 0];

  async function resealPool(
    record: ListedRecord,
    provider: string,
    values: readonly string[],
  ): Promise<void> {
    const { owner } = record;
    left.push(...leftOf(deps.keyring, record, provider, values));
    if (owner === undefined || !needsSealing(deps.keyring, owner, provider, readPool(values))) return;
    try {
      resealed += await writeResealed(writer, deps.keyring, record, { owner, provider, requestId });
      failuresInARow = 0;
    } catch (error) {
      failuresInARow += 1;
      if (!isAppError(error) || failuresInARow >= MAX_FAILURES_IN_A_ROW) throw error;
      deps.log.warn({ err: error, owner, provider }, 'keys could not be sealed anew');
      failed.push({ pool: `${owner}, ${provider}`, why: error.code });
    }
  }

  for await (const record of listRecords(deps.records, deps.place.recordIsUser)) {
    for (const [provider, values] of record.values) await resealPool(record, provider, values);
    records += 1;
    options.onProgress({ records, resealed, resealedElsewhere: 0 });
  }
  return { resealed, failed, left, records };
}

/** @returns how many keys were sealed anew. */
async function writeResealed(
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
      plan: createPlan(keyring, pool.owner, pool.provider),
    });
    return keyIds.length;
  } catch (error) {
    if (error === NOTHING_TO_DO) return 0;
    throw error;
  }
}

/** What is sealed anew is kept over attempts: an earlier one may have held after all. */
function createPlan(keyring: Keyring, owner: Owner, provider: string): (pool: StoredPool) => PoolPlan {
  const resealed = new Set<string>();
  return (pool) => {
    if (resealed.size === 0 && !needsSealing(keyring, owner, provider, pool)) throw NOTHING_TO_DO;
    const values = pool.keys.map((key) => {
      if (!isUnderOlder(keyring, owner, provider, key)) return key.value;
      resealed.add(key.id);
      return withToken(key.value, keyring.reseal(key.token) ?? key.token);
    });
    return { values: [...values, ...pool.foreign], keyIds: [...resealed] };
  };
}

/** Superseded values are dropped by any write, so one under an older key is reason enough for a write. */
function needsSealing(keyring: Keyring, owner: Owner, provider: string, pool: StoredPool): boolean {
  return (
    pool.keys.some((key) => isUnderOlder(keyring, owner, provider, key)) ||
    readEach(pool.superseded).some((key) => (keyring.ringIndex(key.token) ?? 0) > 0)
  );
}

function isUnderOlder(keyring: Keyring, owner: Owner, provider: string, key: StoredKey): boolean {
  const { state, ringIndex } = standingOf(keyring, owner, provider, key);
  return state === 'in_place' && ringIndex !== 0;
}

/** The value with another token and all else as it was, members that this version does not know included. */
function withToken(value: string, token: string): string {
  return JSON.stringify({ ...(JSON.parse(value) as object), token });
}

function leftOf(
  keyring: Keyring,
  { id, owner }: ListedRecord,
  provider: string,
  values: readonly string[],
): RotationReport['left'][number][] {
  return readPool(values).keys.flatMap((key) => {
    const { state } = standingOf(keyring, owner, provider, key);
    const name = `${owner ?? `record ${id}`}, ${provider}/${key.id}`;
    return state === 'in_place' ? [] : [{ key: name, why: state }];
  });
}
