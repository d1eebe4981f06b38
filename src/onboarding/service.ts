import { BYOK_TIER, isTierAtLeast } from '../config/tiers.ts';
import type { Principal } from '../http/principal.ts';
import type { KeyOperations } from '../keys/service.ts';
import { isAppError } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { RunService } from '../runs/service.ts';
import type { ServerService } from '../servers/service.ts';
import type { UsageService } from '../usage/service.ts';
import {
  createOnboardingData,
  readOnboarding,
  updateOnboarding,
  type StoredOnboarding,
} from './onboarding-store.ts';
import type { OnboardingView, UpdateOnboarding } from './schema.ts';

export { createOnboardingData } from './onboarding-store.ts';

export interface OnboardingDeps {
  database: Database;
  keys: Pick<KeyOperations, 'listKeys'>;
  servers: Pick<ServerService, 'list'>;
  runs: Pick<RunService, 'list'>;
  usage: Pick<UsageService, 'listRequests'>;
}

/** How far a user is in the introduction of the page. Nothing else depends on it. */
export interface Onboarding {
  /** @throws AppError `database_unavailable` (503). */
  get(principal: Principal): Promise<OnboardingView>;
  /** @throws AppError `database_unavailable` (503). */
  update(principal: Principal, change: UpdateOnboarding): Promise<OnboardingView>;
  removeUser(userId: string): Promise<void>;
}

const ANY = { cursor: undefined, limit: 1 };
/** By default, the ledger shows the last 30 days. */
const EVER = { from: '1970-01-01' };

export function createOnboarding({ database, keys, servers, runs, usage }: OnboardingDeps): Onboarding {
  /** Whether each thing is done that the tier can do. Below Starter, that is a request that the system pays. */
  function listParts(principal: Principal): Promise<boolean>[] {
    const { user } = principal;
    if (!isTierAtLeast(user.tier, BYOK_TIER))
      return [usage.listRequests(user, ANY, EVER).then(({ data }) => data.length > 0)];
    return [
      keys.listKeys(principal).then((list) => list.length > 0),
      servers.list(user.id).then((list) => list.length > 0),
      runs.list(principal, ANY).then(({ data }) => data.length > 0),
    ];
  }

  async function toView(principal: Principal, stored: StoredOnboarding): Promise<OnboardingView> {
    const parts = await Promise.all(listParts(principal).map((part) => part.catch(toUndone)));
    const progress = Math.round((100 * parts.filter(Boolean).length) / parts.length);
    return { ...stored, progress };
  }

  return {
    async get(principal) {
      const owner = userOwner(principal.user.id);
      return toView(principal, await database.withOwner(owner, (sql) => readOnboarding(sql, owner)));
    },
    async update(principal, change) {
      const owner = userOwner(principal.user.id);
      return toView(
        principal,
        await database.withOwner(owner, (sql) => updateOnboarding(sql, owner, change)),
      );
    },
    removeUser: (userId) => createOnboardingData(database).remove(userOwner(userId)),
  };
}

/** While Keycloak is unavailable, the introduction works without what is stored there. */
function toUndone(error: unknown): false {
  if (isAppError(error, 'keycloak_unavailable')) return false;
  throw error;
}
