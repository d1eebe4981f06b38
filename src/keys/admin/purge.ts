import { isAppError, keycloakUnavailable } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import { getUserId, type Owner } from '../../lib/owner.ts';
import type { KeyAdminDeps } from './deps.ts';
import { listVaultRecords } from './list-records.ts';
import { withCommandLock } from './command-lock.ts';
import { createOwnerRemoval } from './remove-owner.ts';

/** Data of owners outside the vault: tokens, servers, runs, the ledger. `vault purge` deletes it together with the keys. */
export interface OwnerData {
  /** All owners with such data. */
  listOwners(): Promise<readonly Owner[]>;
  /** Removes all such data of an owner. */
  remove(owner: Owner, requestId: string, actor: string): Promise<void>;
}

export interface PurgeDeps extends KeyAdminDeps {
  ownerData: OwnerData;
}

export interface PurgeOptions {
  /** Deletes; otherwise only lists. */
  yes: boolean;
  /** Deletes even when most owners are missing, as they would be with a mistyped realm. */
  evenMost: boolean;
}

/** An owner with a vault record or other data who is no longer in the user realm. */
interface ListedOwner {
  owner: Owner;
  ownerName: string;
  keys: number;
}

export interface PurgeReport {
  /** All owners that a vault record names, or that have other data. */
  owners: number;
  orphans: readonly ListedOwner[];
  /** True when nothing was deleted because too many owners are missing. */
  isRefused: boolean;
  removed: readonly Owner[];
  /** Owners who existed again right before the deletion. */
  kept: readonly Owner[];
  failed: readonly { owner: Owner; why: string }[];
}

const ACTOR = 'system:vault-purge';

/**
 * Finds vault records and other data of users that Keycloak does not have, and deletes them with `yes`. With one realm
 * for users and keys, keys are deleted with the user, and only other data is left.
 * @throws AppError `keycloak_unavailable` when the users cannot be read; UnfitError when another command is writing.
 */
export async function purgeVault(deps: PurgeDeps, options: PurgeOptions): Promise<PurgeReport> {
  const run = () => purge(deps, options);
  return options.yes ? withCommandLock(deps.database, run) : run();
}

async function purge(deps: PurgeDeps, options: PurgeOptions): Promise<PurgeReport> {
  const { owners, orphans } = await findMissingOwners(deps);
  const isRefused = options.yes && !options.evenMost && areTooMany(orphans.length, owners);
  const report = { owners, orphans, isRefused };
  if (!options.yes || isRefused) return { ...report, removed: [], kept: [], failed: [] };
  return { ...report, ...(await removeAll(deps, orphans)) };
}

/** Up to three are too many only as a majority: in a small installation, one orphan is already a tenth of all owners. */
function areTooMany(orphans: number, owners: number): boolean {
  return orphans > owners / 2 || (orphans > 3 && orphans > owners / 10);
}

async function findMissingOwners(deps: PurgeDeps): Promise<Pick<PurgeReport, 'owners' | 'orphans'>> {
  const orphans: ListedOwner[] = [];
  const owners = new Set<Owner>();
  for await (const { owner, ownerName, keys } of listOwners(deps)) {
    if (owners.has(owner)) continue;
    owners.add(owner);
    if (!(await isKnownUser(deps.usersKeycloak, owner))) orphans.push({ owner, ownerName, keys });
  }
  return { owners: owners.size, orphans };
}

/** All owners with stored data, some of them twice. The vault comes first, since it holds names. */
async function* listOwners({
  vaultLocation,
  vaultKeycloak,
  ownerData,
}: PurgeDeps): AsyncGenerator<ListedOwner> {
  if (!vaultLocation.recordIsUser) {
    for await (const { owner, ownerName, values } of listVaultRecords(vaultKeycloak, false)) {
      const keys = [...values.values()].reduce((sum, list) => sum + list.length, 0);
      if (owner !== undefined) yield { owner, ownerName, keys };
    }
  }
  for (const owner of await ownerData.listOwners()) yield { owner, ownerName: '', keys: 0 };
}

async function removeAll(
  deps: PurgeDeps,
  orphans: readonly ListedOwner[],
): Promise<Pick<PurgeReport, 'removed' | 'kept' | 'failed'>> {
  const removal = createOwnerRemoval({ ...deps, recordIsUser: deps.vaultLocation.recordIsUser });
  const requestId = `purge-${randomId()}`;
  const [removed, kept]: [Owner[], Owner[]] = [[], []];
  const failed: PurgeReport['failed'][number][] = [];
  for (const { owner } of orphans) {
    try {
      const mayRemove = async () => !(await isKnownUser(deps.usersKeycloak, owner));
      const outcome = await removal.removeOwner(owner, requestId, ACTOR, mayRemove);
      if (outcome !== 'kept') await deps.ownerData.remove(owner, requestId, ACTOR);
      (outcome === 'kept' ? kept : removed).push(owner);
    } catch (error) {
      if (!isAppError(error)) throw error;
      deps.log.warn({ err: error, owner }, 'the data of a deleted user was not removed');
      failed.push({ owner, why: error.code });
    }
  }
  return { removed, kept, failed };
}

/** Whether the user realm has the owner, enabled or not. Only a 404 counts as no. */
async function isKnownUser(usersKeycloak: KeycloakAdmin, owner: Owner): Promise<boolean> {
  const id = getUserId(owner);
  try {
    const found = await usersKeycloak.call((client) => client.users.findOne({ id }));
    // The client answers null where its type says undefined.
    return (found ?? undefined) !== undefined;
  } catch (error) {
    if (isAppError(error)) throw error;
    throw keycloakUnavailable(
      error,
      `Keycloak did not say whether ${owner} is in realm "${usersKeycloak.realm}".`,
    );
  }
}
