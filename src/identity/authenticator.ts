import type { Request, Response } from 'express';
import { SCOPES, type Authenticate, type Principal, type Scope } from '../http/principal.ts';
import { unauthenticated } from '../lib/errors.ts';
import { getUserId } from '../lib/owner.ts';
import { hasTokenPrefix, type TokenAuthentication } from '../tokens/service.ts';
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
  personalTokens: Pick<TokenAuthentication, 'find' | 'track'>;
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
  async function fromPersonalToken(text: string, request: Request, response: Response): Promise<Principal> {
    const token = await deps.personalTokens.find(text);
    if (token === undefined) throw unauthenticated();
    const { id, models, keyIds, scopes } = token;
    const userId = getUserId(token.owner);
    deps.connections.track(userId, response);
    const user = await deps.userCache.findUser(userId);
    if (user === undefined) throw unauthenticated();
    deps.personalTokens.track(token, request, response);
    return {
      user,
      credential: 'token',
      scopes,
      token: { id, models, keyIds },
      sessionId: null,
      keycloakSessionId: null,
    };
  }

  async function fromBearer(request: Request, response: Response): Promise<Principal> {
    const token = BEARER.exec(readSingle(request, 'authorization') ?? '')?.[1];
    if (token === undefined) throw unauthenticated();
    if (hasTokenPrefix(token)) return fromPersonalToken(token, request, response);
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
      authenticatedAtMs: session.authenticatedAtMs,
    };
  };

  return async (request, response) => {
    if (request.headers.authorization !== undefined) return fromBearer(request, response);
    if (request.headers['x-api-key'] !== undefined)
      return fromPersonalToken(readSingle(request, 'x-api-key') ?? '', request, response);
    return fromSession(request, response);
  };
}

/** The value of a header that is sent once; undefined when it is missing or sent more than once. */
function readSingle(request: Request, name: string): string | undefined {
  const values = request.headersDistinct[name] ?? [];
  return values.length === 1 ? values[0] : undefined;
}
