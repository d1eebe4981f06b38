import { isAppError, UnfitError } from '../../lib/errors.ts';
import type { KeycloakAdmin } from '../../lib/keycloak-admin.ts';
import type { Owner } from '../../lib/owner.ts';
import type { Hold } from '../owner-lock.ts';
import { readOwner } from '../owners-store.ts';
import {
  describePlace,
  isSamePlace,
  lockVaultPlace,
  storeVaultPlace,
  type VaultPlace,
} from '../vault-place.ts';
import { createVault, type Vault } from '../vault.ts';
import { setValues } from './copy-values.ts';
import { countAppConnections, placeOwner } from './custody-store.ts';
import type { CustodyDeps } from './deps.ts';
import { isHeldBy } from './held-values.ts';
import { listRecords, type ListedRecord } from './listing.ts';
import { asOnlyCommand } from './only-command.ts';

export interface MoveDeps extends CustodyDeps {
  /** Keycloak's admin interface as another client, in another realm. */
  openRealm(realm: string, client: { id: string; secret: string }): KeycloakAdmin;
}

export interface MoveOptions {
  /** The vault client of the place that the records come from. */
  from: { id: string; secret: string };
  /** The realm whose old values an interrupted move left behind. */
  cleanUp: string | undefined;
  dryRun: boolean;
  onProgress(done: { step: 'copying' | 'removing'; records: number }): void;
}

export interface MoveReport {
  from: VaultPlace;
  to: VaultPlace;
  /** Owners with keys, whose values are in the new place (in a dry run: would be). */
  copied: number;
  /** Records of owners who keep nothing in them, and which are left behind. */
  empty: number;
  /** Records that stop the move: a record id or an owner, with why. */
  stopping: readonly { record: string; why: string }[];
  /** True when the new place counts. */
  isMoved: boolean;
  removed: number;
  /** Old values that are still there. */
  notRemoved: readonly { record: string; why: string }[];
}

/** What a walk over the old place found. */
interface Found {
  copied: Map<Owner, string | null>;
  empty: Owner[];
  stopping: { record: string; why: string }[];
}

interface Route {
  from: VaultPlace;
  to: VaultPlace;
  oldRecords: KeycloakAdmin;
  oldVault: Vault;
}

/**
 * Moves all vault records from where they are stored to where the configuration says: copies each under its
 * owner's lock and reads it back, then lets the new place count for all at once, then removes the old values.
 * While it copies, no app can start. Cut off before the switch it can simply be run again; cut off after it, the
 * old values are removed with `cleanUp`.
 * @throws UnfitError in words for the operator when it cannot be done, or another command is writing; AppError
 *   when Keycloak is away.
 */
export function moveVault(deps: MoveDeps, options: MoveOptions): Promise<MoveReport> {
  const run = () => moveAll(deps, options);
  return options.dryRun ? run() : asOnlyCommand(deps.database, run);
}

async function moveAll(deps: MoveDeps, options: MoveOptions): Promise<MoveReport> {
  if (options.cleanUp !== undefined) return cleanUp(deps, options, options.cleanUp);
  if (options.dryRun) {
    const route = routeFrom(deps, options, await deps.database.transaction(lockVaultPlace));
    return { ...reportOf(route, await copyAll(deps, options, route)), isMoved: false, ...NOTHING_REMOVED };
  }
  const { route, found } = await copyAndSwitch(deps, options);
  const isMoved = found.stopping.length === 0;
  const removal = isMoved ? await removeOld(deps, options, route) : NOTHING_REMOVED;
  return { ...reportOf(route, found), isMoved, ...removal };
}

const NOTHING_REMOVED = { removed: 0, notRemoved: [] };

/** The row of the place is held all the while, so that no process can start on the one or the other. */
function copyAndSwitch(deps: MoveDeps, options: MoveOptions): Promise<{ route: Route; found: Found }> {
  return deps.database.transaction(async (sql) => {
    const route = routeFrom(deps, options, await lockVaultPlace(sql));
    const connections = await countAppConnections(deps.database);
    if (connections > 0) throw new UnfitError(stopFirst(connections));
    const found = await copyAll(deps, options, route);
    if (found.stopping.length === 0) {
      for (const [owner, vaultId] of found.copied) await placeOwner(sql, owner, vaultId);
      for (const owner of found.empty) await placeOwner(sql, owner, null);
      await storeVaultPlace(sql, route.to);
    }
    return { route, found };
  });
}

function routeFrom(deps: MoveDeps, options: MoveOptions, from: VaultPlace | undefined): Route {
  const to = deps.place;
  if (from === undefined || isSamePlace(from, to)) {
    throw new UnfitError(
      `The stored keys lie in ${describePlace(to)}, as the configuration says: there is nothing to move. ` +
        'Old values that an interrupted move left behind are removed with --clean-up <realm>.',
    );
  }
  if (from.realm === to.realm) {
    throw new UnfitError(
      `The vault's realm "${to.realm}" is the same before and after: it is KEYCLOAK_REALM that was changed, and ` +
        'another realm has other people. Set KEYCLOAK_REALM back.',
    );
  }
  return openRoute(deps, options, from);
}

function openRoute(deps: MoveDeps, options: MoveOptions, from: VaultPlace): Route {
  const oldRecords = deps.openRealm(from.realm, options.from);
  const { recordIsUser } = from;
  const oldVault = createVault({ keycloak: oldRecords, recordIsUser, log: deps.log });
  return { from, to: deps.place, oldRecords, oldVault };
}

async function copyAll(deps: MoveDeps, options: MoveOptions, route: Route): Promise<Found> {
  const found: Found = { copied: new Map(), empty: [], stopping: [] };
  let records = 0;
  for await (const listed of listRecords(route.oldRecords, route.from.recordIsUser)) {
    await copyOne(deps, options, route, listed, found);
    records += 1;
    options.onProgress({ step: 'copying', records });
  }
  await findStrangers(deps, found);
  return found;
}

/** Values that lie in the new place already and have nothing to do with the old would come to life. */
async function findStrangers(deps: MoveDeps, found: Found): Promise<void> {
  const known = new Set<string | undefined>([...found.copied.keys(), ...found.empty]);
  const stopped = new Set(found.stopping.map(({ record }) => record));
  for await (const { id, owner, values } of listRecords(deps.records, deps.place.recordIsUser)) {
    if (values.size === 0 || known.has(owner) || stopped.has(owner ?? id)) continue;
    found.stopping.push({ record: owner ?? id, why: STRANGER });
  }
}

const STRANGER = 'the new place holds keys of it that the old one does not: delete them there';

async function copyOne(
  deps: MoveDeps,
  options: MoveOptions,
  route: Route,
  listed: ListedRecord,
  found: Found,
): Promise<void> {
  const { owner, ownerName } = listed;
  if (owner === undefined) {
    if (listed.values.size > 0) found.stopping.push({ record: listed.id, why: 'it names no owner' });
    return;
  }
  try {
    await deps.lock.hold(owner, async (hold) => {
      const old = await findOld(route, hold, owner);
      if (old?.id !== listed.id) {
        found.stopping.push({ record: listed.id, why: `it names ${owner}, whose record is another` });
      } else if (old.values.size === 0) {
        if (!options.dryRun) await clearCopy(deps, hold, owner, ownerName);
        found.empty.push(owner);
      } else if (options.dryRun) {
        await rehearse(deps, hold, owner, found);
      } else {
        const copy = await setValues(deps.vault, hold, { owner, ownerName, recordId: null }, old.values);
        found.copied.set(owner, copy.id);
      }
    });
  } catch (error) {
    if (!isAppError(error)) throw error;
    deps.log.warn({ err: error, owner }, 'a vault record was not copied');
    found.stopping.push({ record: owner, why: await reasonOf(deps, owner, error.code) });
  }
}

/** What a run that was cut off has copied, and the owner has deleted since. */
async function clearCopy(deps: MoveDeps, hold: Hold, owner: Owner, ownerName: string): Promise<void> {
  const copy = await deps.vault.until(hold.deadlineMs).findRecord(owner, null);
  if (copy !== undefined)
    await setValues(deps.vault, hold, { owner, ownerName, recordId: copy.id }, new Map());
}

async function findOld({ oldVault }: Route, hold: Hold, owner: Owner) {
  const { vaultId } = await hold.connection.withOwner(owner, (sql) => readOwner(sql, owner));
  return oldVault.until(hold.deadlineMs).findRecord(owner, vaultId);
}

/** Finds what would stop the copy, and writes nothing. */
async function rehearse(deps: MoveDeps, hold: Hold, owner: Owner, found: Found): Promise<void> {
  const target = await deps.vault.until(hold.deadlineMs).findRecord(owner, null);
  if (target === undefined && deps.place.recordIsUser) found.stopping.push({ record: owner, why: NOBODY });
  else found.copied.set(owner, target?.id ?? null);
}

const NOBODY = 'Keycloak has no such person: set the configuration back, run "vault purge", then move';

/** Where people hold their own keys, a person who is gone is the likely reason, and has a remedy. */
async function reasonOf(deps: MoveDeps, owner: Owner, code: string): Promise<string> {
  if (!deps.place.recordIsUser) return code;
  const target = await deps.vault.findRecord(owner, null).catch(() => null);
  return target === undefined ? NOBODY : code;
}

/** Removes old values, of owners alone whose keys are in the place that counts. */
async function removeOld(
  deps: MoveDeps,
  options: MoveOptions,
  route: Route,
): Promise<Pick<MoveReport, 'removed' | 'notRemoved'>> {
  const notRemoved: { record: string; why: string }[] = [];
  const listed: ListedRecord[] = [];
  for await (const record of listRecords(route.oldRecords, route.from.recordIsUser)) listed.push(record);
  let removed = 0;
  for (const record of listed) {
    const why = await removeOne(deps, route, record).catch((error: unknown) => {
      if (!isAppError(error)) throw error;
      return error.code;
    });
    if (why === undefined) removed += 1;
    else notRemoved.push({ record: record.owner ?? record.id, why });
    options.onProgress({ step: 'removing', records: removed });
  }
  return { removed, notRemoved };
}

/** @returns why nothing was removed, else undefined. */
async function removeOne(deps: MoveDeps, route: Route, listed: ListedRecord): Promise<string | undefined> {
  const { owner, ownerName } = listed;
  if (owner === undefined) return 'it names no owner';
  return deps.lock.hold(owner, async (hold) => {
    const old = await route.oldVault.until(hold.deadlineMs).findRecord(owner, listed.id);
    if (old?.id !== listed.id) return 'it has changed meanwhile';
    if (old.values.size > 0) {
      const now = await findNow(deps, hold, owner);
      if (now === undefined) return 'the owner has no record in the place that counts';
      if (!isHeldBy(deps.keyring, old.values, now.values)) return 'it holds keys that the new place lacks';
    }
    if (route.from.recordIsUser)
      await setValues(route.oldVault, hold, { owner, ownerName, recordId: old.id }, new Map());
    else await route.oldVault.until(hold.deadlineMs).deleteRecord(owner, old);
    return undefined;
  });
}

async function findNow(deps: MoveDeps, hold: Hold, owner: Owner) {
  const { vaultId } = await hold.connection.withOwner(owner, (sql) => readOwner(sql, owner));
  return vaultId === null ? undefined : deps.vault.until(hold.deadlineMs).findRecord(owner, vaultId);
}

async function cleanUp(deps: MoveDeps, options: MoveOptions, realm: string): Promise<MoveReport> {
  const current = await deps.database.transaction(lockVaultPlace);
  if (current === undefined || !isSamePlace(current, deps.place) || current.realm === realm) {
    throw new UnfitError(
      `Only what lies elsewhere than in ${describePlace(current ?? deps.place)} can be cleaned up, and the ` +
        'configuration must say that place.',
    );
  }
  const route = openRoute(deps, options, { realm, recordIsUser: realm === deps.people.realm });
  const removal = options.dryRun ? { removed: 0, notRemoved: [] } : await removeOld(deps, options, route);
  return { from: route.from, to: route.to, copied: 0, empty: 0, stopping: [], isMoved: true, ...removal };
}

function reportOf({ from, to }: Route, { copied, empty, stopping }: Found) {
  return { from, to, copied: copied.size, empty: empty.length, stopping };
}

function stopFirst(connections: number): string {
  return (
    `The app is running (${connections} connections to the database). Stop all its processes first: what they ` +
    'wrote during the move would be lost.'
  );
}
