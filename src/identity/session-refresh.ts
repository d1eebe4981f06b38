import { isAppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Logout } from './logout.ts';
import type { OidcClient } from './oidc.ts';
import type { SessionContent, StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import { decryptSessionTokens, encryptSessionTokens } from './session-tokens.ts';

/**
 * Checks with Keycloak, if a refresh is due, that the session's sign-in is still valid.
 * @returns false if the session has ended; its rows are deleted then.
 */
export type RefreshIfDue = (session: StoredSession) => Promise<boolean>;

export interface SessionRefreshDeps {
  oidc: Pick<OidcClient, 'refresh'>;
  keyring: Keyring;
  store: SessionStore;
  logout: Logout;
}

/** Concurrent requests of a session share one refresh. */
export function createSessionRefresh(deps: SessionRefreshDeps): RefreshIfDue {
  const refreshing = new Map<string, Promise<boolean>>();

  async function refresh(id: string): Promise<boolean> {
    // Reads the row again: another request may have refreshed it since this one loaded it.
    const session = await deps.store.findSession(id);
    if (session === undefined) return false;
    if (session.refreshAtMs > Date.now()) return true;
    const tokens = decryptSessionTokens(deps.keyring, session, session.tokens);
    if (tokens === undefined) return endSession(id, session);
    const next = await deps.oidc.refresh(tokens.refreshToken).catch((error: unknown) => {
      // Keycloak is unavailable: keep the session. The user lookup decides whether the request is allowed.
      if (isAppError(error, 'keycloak_unavailable')) return 'unavailable' as const;
      throw error;
    });
    if (next === 'unavailable') return true;
    const isSame = next?.userId === session.userId && next.keycloakSessionId === session.keycloakSessionId;
    if (next === undefined || !isSame) return endUnlessReplaced(id, session);
    return deps.store.replaceTokens(id, {
      tokens: encryptSessionTokens(deps.keyring, session, next),
      refreshAtMs: next.refreshAtMs,
    });
  }

  /** A refused refresh token may have been used by another instance just before. */
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
    if (session.refreshAtMs > Date.now()) return Promise.resolve(true);
    const current =
      refreshing.get(session.id) ?? refresh(session.id).finally(() => refreshing.delete(session.id));
    refreshing.set(session.id, current);
    return current;
  };
}
