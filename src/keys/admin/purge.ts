import { isAppError, keycloakUnavailable } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import { getUserId, type Owner } from '../../lib/owner.ts';
import type { KeyAdminDeps } from './deps.ts';
import { listVaultRecords } from './list-records.ts';
import { withCommandLock } from './command-lock.ts';
import { createOwnerRemoval } from './remove-owner.ts';

/** What people have here beside keys, which goes with them. */
export interface OwnerData {
  /** Everybody who has some. */
  listOwners(): Promise<readonly Owner[]>;
  /** Removes all that an owner has. */
  remove(owner: Owner, requestId: string, actor: string): Promise<void>;
}

export interface PurgeDeps extends KeyAdminDeps {
  ownerData: OwnerData;
}

export interface PurgeOptions {
  /** Deletes; otherwise only lists. */
  yes: boolean;
  /** Deletes also where more are missing than leave: a mistyped realm would look like that. */
  evenMost: boolean;
}

/** Somebody with a vault record or belongings who is in the realm of the people no more. */
interface Orphan {
  owner: Owner;
  ownerName: string;
  keys: number;
}

export interface PurgeReport {
  /** Everybody with a vault record that names them, or with belongings. */
  owners: number;
  orphans: readonly Orphan[];
  /** True when nothing was deleted because too many owners are missing. */
  isRefused: boolean;
  removed: readonly Owner[];
  /** Owners who were there again when it came to deleting. */
  kept: readonly Owner[];
  failed: readonly { owner: Owner; why: string }[];
}

const ACTOR = 'system:vault-purge';

/**
 * Finds the vault records and belongings of people whom Keycloak does not know, and deletes them when told to.
 * Where people are their own records, keys go with the person, and belongings alone are left.
 * @throws AppError `keycloak_unavailable` when it cannot be told who is there; UnfitError when another command
 *   is writing.
 */
export async function purgeVault(deps: PurgeDeps, options: PurgeOptions): Promise<PurgeReport> {
  const run = () => purge(deps, options);
  return options.yes ? withCommandLock(deps.database, run) : run();
}

async function purge(deps: PurgeDeps, options: PurgeOptions): Promise<PurgeReport> {
  const { owners, orphans } = await findOrphans(deps);
  const isRefused = options.yes && !options.evenMost && areTooMany(orphans.length, owners);
  const report = { owners, orphans, isRefused };
  if (!options.yes || isRefused) return { ...report, removed: [], kept: [], failed: [] };
  return { ...report, ...(await removeAll(deps, orphans)) };
}

/** In a small installation one who leaves is a tenth at once; there only most of all are too many. */
function areTooMany(orphans: number, owners: number): boolean {
  return orphans > owners / 2 || (orphans > 3 && orphans > owners / 10);
}

async function findOrphans(deps: PurgeDeps): Promise<Pick<PurgeReport, 'owners' | 'orphans'>> {
  const orphans: Orphan[] = [];
  const owners = new Set<Owner>();
  for await (const { owner, ownerName, keys } of listOwners(deps)) {
    if (owners.has(owner)) continue;
    owners.add(owner);
    if (!(await isKnownUser(deps.usersKeycloak, owner))) orphans.push({ owner, ownerName, keys });
  }
  return { owners: owners.size, orphans };
}

/** Everybody of whom something is kept, some of them twice; the vault first, since it knows names. */
async function* listOwners({
  vaultLocation: place,
  vaultKeycloak: records,
  ownerData: belongings,
}: PurgeDeps): AsyncGenerator<Orphan> {
  if (!place.recordIsUser) {
    for await (const { owner, ownerName, values } of listVaultRecords(records, false)) {
      const keys = [...values.values()].reduce((sum, list) => sum + list.length, 0);
      if (owner !== undefined) yield { owner, ownerName, keys };
    }
  }
  for (const owner of await belongings.listOwners()) yield { owner, ownerName: '', keys: 0 };
}

async function removeAll(
  deps: PurgeDeps,
  orphans: readonly Orphan[],
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
      deps.log.warn({ err: error, owner }, 'what somebody left behind was not deleted');
      failed.push({ owner, why: error.code });
    }
  }
  return { removed, kept, failed };
}

/** Whether the realm of the people has the owner, enabled or not. Only a 404 is a no. */
async function isKnownUser(people: KeycloakAdmin, owner: Owner): Promise<boolean> {
  const id = getUserId(owner);
  try {
    const found = await people.call((client) => client.users.findOne({ id }));
    // The client answers null where its type says undefined.
    return (found ?? undefined) !== undefined;
  } catch (error) {
    if (isAppError(error)) throw error;
    throw keycloakUnavailable(error, `Keycloak did not say whether ${owner} is in realm "${people.realm}".`);
  }
}
