import type { Request, Response } from 'express';
import { SCOPES, type Authenticate, type Principal, type Scope } from '../http/principal.ts';
import { unauthenticated } from '../lib/errors.ts';
import type { UserCache } from './user-cache.ts';
import type { UserConnections } from './user-connections.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';
import type { RefreshIfDue } from './session-refresh.ts';
import type { Sessions } from './sessions.ts';
import type { TokenVerifier } from './token-verifier.ts';

export interface AuthenticatorDeps {
  sessions: Sessions;
  userCache: UserCache;
  refreshIfDue: RefreshIfDue;
  tokens: TokenVerifier;
  store: SessionStore;
  logout: Logout;
  connections: UserConnections;
}

const ALL_SCOPES: ReadonlySet<Scope> = new Set(SCOPES);
/** Scopes of a Keycloak access token (docs/api.md). It can never change keys. */
const BEARER_SCOPES: ReadonlySet<Scope> = new Set(['chat', 'keys:read']);
/** RFC 6750, section 2.1. */
const BEARER = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i;

/**
 * Turns a credential into a principal. Only one credential is read: a bad `Authorization` does not fall back to
 * `x-api-key`, and a bad `x-api-key` does not fall back to the cookie. The user must exist and be enabled in
 * Keycloak.
 */
export function createAuthenticator(deps: AuthenticatorDeps): Authenticate {
  async function fromBearer(request: Request, response: Response): Promise<Principal> {
    const values = request.headersDistinct['authorization'] ?? [];
    const token = values.length === 1 ? BEARER.exec(values[0] ?? '')?.[1] : undefined;
    if (token === undefined) throw unauthenticated();
    const { userId, keycloakSessionId, issuedAtMs } = await deps.tokens.verifyBearer(token);
    if (await deps.store.isLoggedOut({ userId, keycloakSessionId, signedInAtMs: issuedAtMs })) {
      throw unauthenticated();
    }
    deps.connections.track(userId, response);
    const user = await deps.userCache.findUser(userId);
    if (user === undefined) throw unauthenticated();
    return {
      user,
      credential: 'bearer',
      scopes: BEARER_SCOPES,
      token: null,
      sessionId: null,
      keycloakSessionId,
      signedInAtMs: issuedAtMs,
    };
  }

  const fromSession: Authenticate = async (request, response) => {
    const session = await deps.sessions.find(request);
    if (session === undefined) throw unauthenticated();
    deps.connections.track(session.userId, response);
    const user = await deps.userCache.findUser(session.userId);
    if (user === undefined) {
      await deps.logout.endUser(session.userId);
      throw unauthenticated();
    }
    if (!(await deps.refreshIfDue(session))) throw unauthenticated();
    return {
      user,
      credential: 'session',
      scopes: ALL_SCOPES,
      token: null,
      sessionId: session.id,
      keycloakSessionId: session.keycloakSessionId,
      signedInAtMs: session.signedInAtMs,
    };
  };

  return async (request, response) => {
    if (request.headers.authorization !== undefined) return fromBearer(request, response);
    // It is for personal tokens, of which there are none yet. The header decides alone all the same.
    if (request.headers['x-api-key'] !== undefined) throw unauthenticated();
    return fromSession(request, response);
  };
}
