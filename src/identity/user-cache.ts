import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import type { User } from '../http/principal.ts';
import { isAppError, keycloakUnavailable } from '../lib/errors.ts';
import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { parseTier } from '../config/tiers.ts';

/** People as Keycloak knows them now. */
export interface UserCache {
  /**
   * Looks a user up by Keycloak's id.
   * @param maxAgeMs how old the answer may be, counted from the start of its fetch; 10 s at most.
   * @returns undefined when the user is missing or disabled.
   * @throws AppError `keycloak_unavailable` when Keycloak does not answer; an older answer is never used then.
   */
  findUser(id: string, maxAgeMs?: number): Promise<User | undefined>;
  /** Drops what is known of a user, so that the next look-up asks Keycloak. */
  invalidate(id: string): void;
}

export interface UserCacheDeps {
  keycloakAdmin: KeycloakAdmin;
  /** A clock that never goes back, in ms. */
  now?: () => number;
  maxEntries?: number;
}

/** A tier or a switch that an administrator changes takes effect within this time even if no event is seen. */
const MAX_AGE_MS = 10_000;

interface CachedUser {
  fetchStartedAtMs: number;
  user: Promise<User | undefined>;
}

/**
 * Builds the directory. An entry is the fetch itself, from its start: whoever comes while it runs shares it,
 * and an entry that is dropped while its fetch runs is gone for all who come later.
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
  // An empty id would turn the look-up into a listing.
  if (id === '') return undefined;
  try {
    const found = await keycloakAdmin.call((client) => client.users.findOne({ id }));
    return toUser(id, found);
  } catch (error) {
    if (isAppError(error)) throw error;
    // For example 403: the service client lost its rights. Nobody is let in on that.
    throw keycloakUnavailable(error, 'Keycloak did not say who you are. Try again shortly.');
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
