import { isAppError, UnfitError } from '../../lib/errors.ts';
import type { KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import type { Owner } from '../../lib/owner.ts';
import type { HeldOwnerLock } from '../owner-lock.ts';
import { readVaultIndex } from '../vault-index-store.ts';
import {
  describeLocation,
  isSameLocation,
  lockVaultLocation,
  writeVaultLocation,
  type VaultLocation,
} from '../vault-location.ts';
import { createVault, type Vault } from '../vault.ts';
import { countAppConnections, setOwnerVaultId } from './admin-store.ts';
import type { KeyAdminDeps } from './deps.ts';
import { listVaultRecords, type ListedRecord } from './list-records.ts';
import { withCommandLock } from './command-lock.ts';
import { areValuesContained, setRecordValues } from './record-values.ts';

export interface MoveDeps extends KeyAdminDeps {
  /** Keycloak's admin API as another client, in another realm. */
  createRealmAdmin(realm: string, client: { id: string; secret: string }): KeycloakAdmin;
}

export interface MoveOptions {
  /** The vault client of the old location. */
  from: { id: string; secret: string };
  /** A realm in which an interrupted move left old values. */
  cleanUp: string | undefined;
  dryRun: boolean;
  onProgress(done: { step: 'copying' | 'removing'; records: number }): void;
}

export interface MoveReport {
  from: VaultLocation;
  to: VaultLocation;
  /** Owners whose keys were copied to the new location (in a dry run: would be). */
  copied: number;
  /** Records without keys. They are not copied. */
  empty: number;
  /** Records that stop the move: a record id or an owner, with the reason. */
  blockers: readonly { record: string; why: string }[];
  /** True when the new location is in use. */
  isMoved: boolean;
  removed: number;
  /** Records whose old values are still stored. */
  notRemoved: readonly { record: string; why: string }[];
}

/** The result of copying the records of the old location. */
interface CopyResult {
  copied: Map<Owner, string | null>;
  empty: Owner[];
  blockers: { record: string; why: string }[];
}

interface VaultMove {
  from: VaultLocation;
  to: VaultLocation;
  oldRecords: KeycloakAdmin;
  oldVault: Vault;
}

/**
 * Moves all vault records from the stored location to the configured one. Copies each record under its owner's lock and
 * reads it back, then switches all owners to the new location at once, then removes the old values. No app can start
 * while it copies. If it is interrupted before the switch, run it again; after the switch, use `cleanUp`.
 * @throws UnfitError when a move is not possible or another command is writing; AppError when Keycloak fails.
 */
export function moveVault(deps: MoveDeps, options: MoveOptions): Promise<MoveReport> {
  const run = () => moveAll(deps, options);
  return options.dryRun ? run() : withCommandLock(deps.database, run);
}

async function moveAll(deps: MoveDeps, options: MoveOptions): Promise<MoveReport> {
  if (options.cleanUp !== undefined) return cleanUp(deps, options, options.cleanUp);
  if (options.dryRun) {
    const move = createMove(deps, options, await deps.database.transaction(lockVaultLocation));
    return { ...toReport(move, await copyAll(deps, options, move)), isMoved: false, ...NOTHING_REMOVED };
  }
  const { move, result } = await moveRecords(deps, options);
  const isMoved = result.blockers.length === 0;
  const removal = isMoved ? await removeOld(deps, options, move) : NOTHING_REMOVED;
  return { ...toReport(move, result), isMoved, ...removal };
}

const NOTHING_REMOVED = { removed: 0, notRemoved: [] };

/** The row of the location stays locked, so that no process can start with the old or the new location. */
function moveRecords(deps: MoveDeps, options: MoveOptions): Promise<{ move: VaultMove; result: CopyResult }> {
  return deps.database.transaction(async (sql) => {
    const move = createMove(deps, options, await lockVaultLocation(sql));
    const connections = await countAppConnections(deps.database);
    if (connections > 0) throw new UnfitError(appRunningMessage(connections));
    const result = await copyAll(deps, options, move);
    if (result.blockers.length === 0) {
      for (const [owner, vaultId] of result.copied) await setOwnerVaultId(sql, owner, vaultId);
      for (const owner of result.empty) await setOwnerVaultId(sql, owner, null);
      await writeVaultLocation(sql, move.to);
    }
    return { move, result };
  });
}

function createMove(deps: MoveDeps, options: MoveOptions, from: VaultLocation | undefined): VaultMove {
  const to = deps.vaultLocation;
  if (from === undefined || isSameLocation(from, to)) {
    throw new UnfitError(
      `The stored keys are in ${describeLocation(to)}, as configured: there is nothing to move. ` +
        'To remove old values that an interrupted move left, use --clean-up <realm>.',
    );
  }
  if (from.realm === to.realm) {
    throw new UnfitError(
      `The vault's realm "${to.realm}" is the same before and after; KEYCLOAK_REALM was changed, and ` +
        'another realm has other users. Set KEYCLOAK_REALM back.',
    );
  }
  return openMove(deps, options, from);
}

function openMove(deps: MoveDeps, options: MoveOptions, from: VaultLocation): VaultMove {
  const oldRecords = deps.createRealmAdmin(from.realm, options.from);
  const { recordIsUser } = from;
  const oldVault = createVault({ keycloak: oldRecords, recordIsUser, log: deps.log });
  return { from, to: deps.vaultLocation, oldRecords, oldVault };
}

async function copyAll(deps: MoveDeps, options: MoveOptions, move: VaultMove): Promise<CopyResult> {
  const result: CopyResult = { copied: new Map(), empty: [], blockers: [] };
  let records = 0;
  for await (const listed of listVaultRecords(move.oldRecords, move.from.recordIsUser)) {
    await copyOne(deps, options, move, listed, result);
    records += 1;
    options.onProgress({ step: 'copying', records });
  }
  await findUnexpectedRecords(deps, result);
  return result;
}

/** Keys that are only in the new location would come into use with the switch. They stop the move. */
async function findUnexpectedRecords(deps: MoveDeps, result: CopyResult): Promise<void> {
  const known = new Set<string | undefined>([...result.copied.keys(), ...result.empty]);
  const blocked = new Set(result.blockers.map(({ record }) => record));
  const { vaultKeycloak, vaultLocation } = deps;
  for await (const { id, owner, values } of listVaultRecords(vaultKeycloak, vaultLocation.recordIsUser)) {
    if (values.size === 0 || known.has(owner) || blocked.has(owner ?? id)) continue;
    result.blockers.push({ record: owner ?? id, why: UNEXPECTED_RECORD });
  }
}

const UNEXPECTED_RECORD =
  'the new location has keys of this owner that the old location does not have; delete them in the new location';

async function copyOne(
  deps: MoveDeps,
  options: MoveOptions,
  move: VaultMove,
  listed: ListedRecord,
  result: CopyResult,
): Promise<void> {
  const { owner, ownerName } = listed;
  if (owner === undefined) {
    if (listed.values.size > 0) result.blockers.push({ record: listed.id, why: 'it names no owner' });
    return;
  }
  try {
    await deps.lock.runExclusive(owner, async (held) => {
      const old = await findOldRecord(move, held, owner);
      if (old?.id !== listed.id) {
        result.blockers.push({ record: listed.id, why: `it names ${owner}, which has another record` });
      } else if (old.values.size === 0) {
        if (!options.dryRun) await clearCopy(deps, held, owner, ownerName);
        result.empty.push(owner);
      } else if (options.dryRun) {
        await checkCopy(deps, held, owner, result);
      } else {
        const target = { owner, ownerName, recordId: null };
        const copy = await setRecordValues(deps.vault, held, target, old.values);
        result.copied.set(owner, copy.id);
      }
    });
  } catch (error) {
    if (!isAppError(error)) throw error;
    deps.log.warn({ err: error, owner }, 'a vault record was not copied');
    result.blockers.push({ record: owner, why: await toCopyErrorReason(deps, owner, error.code) });
  }
}

/** Removes keys that an interrupted move copied and that the owner has deleted since. */
async function clearCopy(
  deps: MoveDeps,
  held: HeldOwnerLock,
  owner: Owner,
  ownerName: string,
): Promise<void> {
  const copy = await deps.vault.writableUntil(held.deadlineMs).findRecord(owner, null);
  if (copy !== undefined)
    await setRecordValues(deps.vault, held, { owner, ownerName, recordId: copy.id }, new Map());
}

async function findOldRecord({ oldVault }: VaultMove, held: HeldOwnerLock, owner: Owner) {
  const { vaultId } = await held.connection.withOwner(owner, (sql) => readVaultIndex(sql, owner));
  return oldVault.writableUntil(held.deadlineMs).findRecord(owner, vaultId);
}

/** Finds what would stop the copy. Writes nothing. */
async function checkCopy(
  deps: MoveDeps,
  held: HeldOwnerLock,
  owner: Owner,
  result: CopyResult,
): Promise<void> {
  const target = await deps.vault.writableUntil(held.deadlineMs).findRecord(owner, null);
  if (target === undefined && deps.vaultLocation.recordIsUser)
    result.blockers.push({ record: owner, why: NO_SUCH_USER });
  else result.copied.set(owner, target?.id ?? null);
}

const NO_SUCH_USER = 'Keycloak has no such user: set the configuration back, run "vault purge", then move';

/** With one realm for users and keys, the likely cause is a deleted user, which has a remedy. */
async function toCopyErrorReason(deps: MoveDeps, owner: Owner, code: string): Promise<string> {
  if (!deps.vaultLocation.recordIsUser) return code;
  const target = await deps.vault.findRecord(owner, null).catch(() => null);
  return target === undefined ? NO_SUCH_USER : code;
}

/** Removes the old values of owners whose keys are in the new location. */
async function removeOld(
  deps: MoveDeps,
  options: MoveOptions,
  move: VaultMove,
): Promise<Pick<MoveReport, 'removed' | 'notRemoved'>> {
  const notRemoved: { record: string; why: string }[] = [];
  const listed: ListedRecord[] = [];
  for await (const record of listVaultRecords(move.oldRecords, move.from.recordIsUser)) listed.push(record);
  let removed = 0;
  for (const record of listed) {
    const why = await removeOne(deps, move, record).catch((error: unknown) => {
      if (!isAppError(error)) throw error;
      return error.code;
    });
    if (why === undefined) removed += 1;
    else notRemoved.push({ record: record.owner ?? record.id, why });
    options.onProgress({ step: 'removing', records: removed });
  }
  return { removed, notRemoved };
}

/** @returns why nothing was removed; undefined when the values were removed. */
async function removeOne(deps: MoveDeps, move: VaultMove, listed: ListedRecord): Promise<string | undefined> {
  const { owner, ownerName } = listed;
  if (owner === undefined) return 'it names no owner';
  return deps.lock.runExclusive(owner, async (held) => {
    const old = await move.oldVault.writableUntil(held.deadlineMs).findRecord(owner, listed.id);
    if (old?.id !== listed.id) return 'it was changed meanwhile';
    if (old.values.size > 0) {
      const current = await findCurrentRecord(deps, held, owner);
      if (current === undefined) return 'the owner has no record in the new location';
      if (!areValuesContained(deps.keyring, old.values, current.values))
        return 'it holds keys that the new location lacks';
    }
    if (move.from.recordIsUser)
      await setRecordValues(move.oldVault, held, { owner, ownerName, recordId: old.id }, new Map());
    else await move.oldVault.writableUntil(held.deadlineMs).deleteRecord(owner, old);
    return undefined;
  });
}

async function findCurrentRecord(deps: MoveDeps, held: HeldOwnerLock, owner: Owner) {
  const { vaultId } = await held.connection.withOwner(owner, (sql) => readVaultIndex(sql, owner));
  return vaultId === null ? undefined : deps.vault.writableUntil(held.deadlineMs).findRecord(owner, vaultId);
}

async function cleanUp(deps: MoveDeps, options: MoveOptions, realm: string): Promise<MoveReport> {
  const current = await deps.database.transaction(lockVaultLocation);
  if (current === undefined || !isSameLocation(current, deps.vaultLocation) || current.realm === realm) {
    throw new UnfitError(
      `The stored keys are in ${describeLocation(current ?? deps.vaultLocation)}. --clean-up needs a realm other than ` +
        "that, and the configuration must name the keys' location.",
    );
  }
  const move = openMove(deps, options, { realm, recordIsUser: realm === deps.usersKeycloak.realm });
  const removal = options.dryRun ? { removed: 0, notRemoved: [] } : await removeOld(deps, options, move);
  return { from: move.from, to: move.to, copied: 0, empty: 0, blockers: [], isMoved: true, ...removal };
}

function toReport({ from, to }: VaultMove, { copied, empty, blockers }: CopyResult) {
  return { from, to, copied: copied.size, empty: empty.length, blockers };
}

function appRunningMessage(connections: number): string {
  return (
    `The app is running (${connections} connections to the database). Stop all its processes first: their ` +
    'writes during the move would be lost.'
  );
}
