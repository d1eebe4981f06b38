import type { Request } from 'express';
import { listCookieValues } from '../http/cookies.ts';
import { SCOPES, type Authenticate, type Principal, type Scope } from '../http/principal.ts';
import { AppError, unauthenticated } from '../lib/errors.ts';
import type { UserCache } from './user-cache.ts';
import type { Logout } from './logout.ts';
import type { SessionStore } from './session-store.ts';
import type { RefreshIfDue } from './session-refresh.ts';
import type { Sessions } from './sessions.ts';
import type { TokenVerifier } from './token-verifier.ts';

export interface AuthenticatorDeps {
  sessions: Sessions;
  cookieName: string;
  userCache: UserCache;
  refreshIfDue: RefreshIfDue;
  tokens: TokenVerifier;
  store: SessionStore;
  logout: Logout;
}

const ALL_SCOPES: ReadonlySet<Scope> = new Set(SCOPES);
/** What an access token of Keycloak may do (docs/api.md): it never changes keys. */
const BEARER_SCOPES: ReadonlySet<Scope> = new Set(['chat', 'keys:read']);
/** RFC 6750, section 2.1. */
const BEARER = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i;

/**
 * Builds the one place where a credential becomes a principal. One credential decides alone: a bad
 * `Authorization` never falls back to `x-api-key`, nor that to the cookie. Whatever the credential, its user
 * must exist and be enabled in Keycloak.
 */
export function createAuthenticator(deps: AuthenticatorDeps): Authenticate {
  async function fromBearer(request: Request): Promise<Principal> {
    const values = request.headersDistinct['authorization'] ?? [];
    const token = values.length === 1 ? BEARER.exec(values[0] ?? '')?.[1] : undefined;
    if (token === undefined) throw unauthenticated();
    const { userId, keycloakSessionId, issuedAtMs } = await deps.tokens.verifyBearer(token);
    if (await deps.store.isLoggedOut({ userId, keycloakSessionId, signedInAtMs: issuedAtMs })) {
      throw unauthenticated();
    }
    const user = await deps.userCache.findUser(userId);
    if (user === undefined) throw unauthenticated();
    return {
      user,
      credential: 'bearer',
      scopes: BEARER_SCOPES,
      sessionId: null,
      keycloakSessionId,
      signedInAtMs: issuedAtMs,
    };
  }

  const fromSession: Authenticate = async (request, response) => {
    const session = await deps.sessions.find(request, response);
    if (session === undefined) throw unauthenticated();
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
      sessionId: session.id,
      keycloakSessionId: session.keycloakSessionId,
      signedInAtMs: session.signedInAtMs,
    };
  };

  return async (request, response) => {
    const hasCookie = hasSessionCookie(request, deps.cookieName);
    if (request.headers.authorization !== undefined) return fromBearer(request);
    // No credential of this kind exists yet; its presence still decides.
    if (request.headers['x-api-key'] !== undefined) throw unauthenticated();
    if (!hasCookie) throw unauthenticated();
    return fromSession(request, response);
  };
}

/**
 * Whether the request has the session cookie.
 * @throws AppError `validation_failed` when there are two: one could have been planted by a neighbouring host.
 */
export function hasSessionCookie(request: Request, cookieName: string): boolean {
  const values = listCookieValues(request, cookieName);
  if (values.length > 1) {
    throw new AppError('validation_failed', `The cookie ${cookieName} was sent more than once.`);
  }
  return values.length === 1;
}
