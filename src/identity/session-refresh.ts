import { isAppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Logout } from './logout.ts';
import type { OidcClient } from './oidc.ts';
import type { SessionContent, StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import { decryptSessionTokens, encryptSessionTokens } from './session-tokens.ts';

/**
 * Asks Keycloak, when it is time, whether the sign-in behind a session still stands.
 * @returns false when the session is over; its rows are gone then.
 */
export type RefreshIfDue = (session: StoredSession) => Promise<boolean>;

export interface SessionRefreshDeps {
  oidc: Pick<OidcClient, 'refresh'>;
  keyring: Keyring;
  store: SessionStore;
  logout: Logout;
  now?: () => number;
}

/** Builds the refresh: one call at a time per session, however many requests come in at once. */
export function createSessionRefresh(deps: SessionRefreshDeps): RefreshIfDue {
  const now = deps.now ?? Date.now;
  const refreshing = new Map<string, Promise<boolean>>();

  async function refresh(id: string): Promise<boolean> {
    // Read anew: the request may have loaded the row before another one refreshed it.
    const session = await deps.store.findSession(id);
    if (session === undefined) return false;
    if (session.refreshAtMs > now()) return true;
    const tokens = decryptSessionTokens(deps.keyring, session, session.tokens);
    if (tokens === undefined) return endSession(id, session);
    const next = await deps.oidc.refresh(tokens.refreshToken).catch((error: unknown) => {
      // Keycloak is away: the session stays, the directory decides whether anybody is let in.
      if (isAppError(error, 'keycloak_unavailable')) return 'away' as const;
      throw error;
    });
    if (next === 'away') return true;
    const isSame = next?.userId === session.userId && next.keycloakSessionId === session.keycloakSessionId;
    if (next === undefined || !isSame) return endUnlessReplaced(id, session);
    return deps.store.replaceTokens(id, {
      tokens: encryptSessionTokens(deps.keyring, session, next),
      refreshAtMs: next.refreshAtMs,
    });
  }

  /** A refused refresh token may be one that another instance has just used up. */
  async function endUnlessReplaced(id: string, session: SessionContent): Promise<boolean> {
    const current = await deps.store.findSession(id);
    if (current !== undefined && current.tokens !== session.tokens) return true;
    return endSession(id, session);
  }

  async function endSession(id: string, session: SessionContent): Promise<boolean> {
    await deps.logout.endSession({ ...session, id });
    return false;
  }

  return (session) => {
    if (session.refreshAtMs > now()) return Promise.resolve(true);
    const current =
      refreshing.get(session.id) ?? refresh(session.id).finally(() => refreshing.delete(session.id));
    refreshing.set(session.id, current);
    return current;
  };
}
