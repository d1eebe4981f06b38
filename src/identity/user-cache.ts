import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import type { User } from '../http/principal.ts';
import { isAppError, keycloakUnavailable } from '../lib/errors.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { parseTier } from '../config/tiers.ts';

/** Users as stored in Keycloak, cached for at most 10 s. */
export interface UserCache {
  /**
   * Finds a user by Keycloak id.
   * @param maxAgeMs maximum age of a cached user, counted from the start of its fetch; at most 10 s.
   * @returns undefined if the user is missing or disabled.
   * @throws AppError `keycloak_unavailable` if Keycloak does not answer. An older cached user is not used then.
   */
  findUser(id: string, maxAgeMs?: number): Promise<User | undefined>;
  /** Drops the cached user, so that the next lookup reads from Keycloak. */
  invalidate(id: string): void;
}

export interface UserCacheDeps {
  keycloakAdmin: KeycloakAdmin;
  /** Monotonic clock, in ms. */
  now?: () => number;
  maxEntries?: number;
}

/** A change of tier or of `enabled` takes effect within this time, even if its admin event is missed. */
const MAX_AGE_MS = 10_000;

interface CachedUser {
  fetchStartedAtMs: number;
  user: Promise<User | undefined>;
}

/**
 * Caches fetches, not their results: concurrent lookups of a user share one fetch, and a user that is
 * invalidated during its fetch is fetched again by later lookups.
 */
export function createUserCache(deps: UserCacheDeps): UserCache {
  const now = deps.now ?? (() => performance.now());
  const maxEntries = deps.maxEntries ?? 10_000;
  const entries = new Map<string, CachedUser>();

  function startFetch(id: string): CachedUser {
    const entry: CachedUser = { fetchStartedAtMs: now(), user: fetchUser(deps.keycloakAdmin, id) };
    entries.delete(id);
    entries.set(id, entry);
    const [oldest] = entries.keys();
    if (entries.size > maxEntries && oldest !== undefined) entries.delete(oldest);
    entry.user.catch(() => {
      if (entries.get(id) === entry) entries.delete(id);
    });
    return entry;
  }

  return {
    findUser(id, maxAgeMs = MAX_AGE_MS) {
      const cached = entries.get(id);
      const isFresh =
        cached !== undefined && now() - cached.fetchStartedAtMs < Math.min(maxAgeMs, MAX_AGE_MS);
      return (isFresh ? cached : startFetch(id)).user;
    },
    invalidate: (id) => void entries.delete(id),
  };
}

async function fetchUser(keycloakAdmin: KeycloakAdmin, id: string): Promise<User | undefined> {
  // With an empty id the request would list all users.
  if (id === '') return undefined;
  try {
    const found = await keycloakAdmin.call((client) => client.users.findOne({ id }));
    return toUser(id, found);
  } catch (error) {
    if (isAppError(error)) throw error;
    // For example 403: the service client has lost its roles.
    throw keycloakUnavailable(error, 'Your account cannot be read from Keycloak. Try again shortly.');
  }
}

function toUser(id: string, found: UserRepresentation | null | undefined): User | undefined {
  if (found?.id !== id || found.enabled !== true) return undefined;
  const name = [found.firstName, found.lastName].filter(Boolean).join(' ');
  const attributes: Record<string, unknown> = found.attributes ?? {};
  const tier = attributes['subscription_tier'];
  return {
    id,
    username: found.username ?? '',
    email: found.email ?? null,
    name: name === '' ? null : name,
    tier: parseTier(Array.isArray(tier) ? tier[0] : undefined),
  };
}
