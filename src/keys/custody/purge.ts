import { isAppError, keycloakUnavailable } from '../../lib/errors.ts';
import { randomId } from '../../lib/ids.ts';
import type { KeycloakAdmin } from '../../lib/keycloak-admin.ts';
import type { Owner } from '../record.ts';
import type { CustodyDeps } from './deps.ts';
import { listRecords } from './listing.ts';
import { asOnlyCommand } from './only-command.ts';
import { createOwnerRemoval } from './removal.ts';

export interface PurgeOptions {
  /** Deletes; otherwise only lists. */
  yes: boolean;
  /** Deletes also where more are missing than leave: a mistyped realm would look like that. */
  evenMost: boolean;
}

/** A vault record whose owner is in the realm of the people no more. */
interface Orphan {
  owner: Owner;
  ownerName: string;
  keys: number;
}

export interface PurgeReport {
  /** Records that name an owner. */
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
 * Finds the vault records of people whom Keycloak does not know, and deletes them when told to. Where people are
 * their own records there is nothing to do: keys go with the person.
 * @throws AppError `keycloak_unavailable` when it cannot be told who is there; UnfitError when another command
 *   is writing.
 */
export async function purgeVault(deps: CustodyDeps, options: PurgeOptions): Promise<PurgeReport> {
  const run = () => purge(deps, options);
  return options.yes ? asOnlyCommand(deps.database, run) : run();
}

async function purge(deps: CustodyDeps, options: PurgeOptions): Promise<PurgeReport> {
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

async function findOrphans(deps: CustodyDeps): Promise<Pick<PurgeReport, 'owners' | 'orphans'>> {
  const orphans: Orphan[] = [];
  let owners = 0;
  if (deps.place.recordIsUser) return { owners, orphans };
  for await (const { owner, ownerName, values } of listRecords(deps.records, false)) {
    if (owner === undefined) continue;
    owners += 1;
    if (await isKnown(deps.people, owner)) continue;
    const keys = [...values.values()].reduce((sum, list) => sum + list.length, 0);
    orphans.push({ owner, ownerName, keys });
  }
  return { owners, orphans };
}

async function removeAll(
  deps: CustodyDeps,
  orphans: readonly Orphan[],
): Promise<Pick<PurgeReport, 'removed' | 'kept' | 'failed'>> {
  const removal = createOwnerRemoval({ ...deps, recordIsUser: deps.place.recordIsUser });
  const requestId = `purge-${randomId()}`;
  const [removed, kept]: [Owner[], Owner[]] = [[], []];
  const failed: PurgeReport['failed'][number][] = [];
  for (const { owner } of orphans) {
    try {
      const mayRemove = async () => !(await isKnown(deps.people, owner));
      const outcome = await removal.removeOwner(owner, requestId, ACTOR, mayRemove);
      (outcome === 'kept' ? kept : removed).push(owner);
    } catch (error) {
      if (!isAppError(error)) throw error;
      deps.log.warn({ err: error, owner }, 'a vault record was not deleted');
      failed.push({ owner, why: error.code });
    }
  }
  return { removed, kept, failed };
}

/** Whether the realm of the people has the owner, enabled or not. Only a 404 is a no. */
async function isKnown(people: KeycloakAdmin, owner: Owner): Promise<boolean> {
  const id = owner.slice('user:'.length);
  try {
    const found = await people.call((client) => client.users.findOne({ id }));
    // The client answers null where its type says undefined.
    return (found ?? undefined) !== undefined;
  } catch (error) {
    if (isAppError(error)) throw error;
    throw keycloakUnavailable(error, `Keycloak did not say whether ${owner} is in realm "${people.realm}".`);
  }
}
