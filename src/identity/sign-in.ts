import type { Request, Response } from 'express';
import { getRequestContext } from '../http/route.ts';
import { unauthenticated, AppError } from '../lib/errors.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { readClient } from '../tokens/service.ts';
import type { UserCache } from './user-cache.ts';
import type { ActiveWork } from './active-work.ts';
import type { LoginStates } from './login-state.ts';
import type { OidcClient, SignInResult } from './oidc.ts';
import type { LoginQuery, StoredSession } from './schema.ts';
import type { SessionCookie } from './session-cookie.ts';
import type { SessionStore } from './session-store.ts';
import { decryptSessionTokens, encryptSessionTokens } from './session-tokens.ts';
import type { Sessions } from './sessions.ts';
import type { Logout } from './logout.ts';

/** A sign-in loop must not fill the table of sessions. */
const MAX_SESSIONS_PER_USER = 50;
/** Nor the audit trail, in which each sign-in has a row. */
const MAX_SIGN_INS_PER_MINUTE = 30;

export interface SignInFlowDeps {
  publicUrl: string;
  oidc: OidcClient;
  loginStates: LoginStates;
  sessionCookie: SessionCookie;
  sessions: Sessions;
  store: SessionStore;
  keyring: Keyring;
  userCache: UserCache;
  activeWork: ActiveWork;
  logout: Logout;
  /** Writes a sign-in to the user's audit trail. */
  recordSignIn(userId: string, requestId: string): Promise<void>;
}

/** Sign-in and sign-out in the browser. Each method returns the address to redirect to. */
export interface SignInFlow {
  /** @throws AppError `keycloak_unavailable`. */
  begin(request: Request, response: Response, query: LoginQuery): Promise<string>;
  /** @throws AppError `validation_failed`, `unauthenticated`, `rate_limited`, `keycloak_unavailable`, `database_unavailable`. */
  complete(request: Request, response: Response): Promise<string>;
  /** Ends every session that the request names. @throws AppError `database_unavailable`. */
  signOut(request: Request, response: Response): Promise<string>;
}

export function createSignInFlow(deps: SignInFlowDeps): SignInFlow {
  const { oidc, sessions, store } = deps;
  const rateLimit = createRateLimit({
    maxUses: MAX_SIGN_INS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_SIGN_INS_PER_MINUTE} sign-ins a minute. Wait, then sign in again.`,
  });

  /** Saves the session, then checks for a logout during the sign-in. logout.ts explains the order. */
  async function createSession(request: Request, response: Response, signedIn: SignInResult): Promise<void> {
    const previous = await sessions.find(request);
    const { userId, keycloakSessionId, signedInAtMs, authenticatedAtMs, refreshAtMs } = signedIn;
    const tokens = encryptSessionTokens(deps.keyring, signedIn, signedIn);
    try {
      const client = readClient(request);
      const content = {
        userId,
        keycloakSessionId,
        signedInAtMs,
        authenticatedAtMs,
        refreshAtMs,
        client,
        tokens,
      };
      await sessions.replace(request, response, content);
      if (previous !== undefined) deps.activeWork.endSession(previous.id);
      const dropped = await store.deleteOldestSessions(userId, MAX_SESSIONS_PER_USER);
      for (const id of dropped) deps.activeWork.endSession(id);
      if (await store.isLoggedOut(signedIn)) throw signedOutDuringSignIn();
    } catch (error) {
      await sessions.discard(request).catch(() => undefined);
      throw error;
    }
  }

  async function endSessionUrl(session: StoredSession): Promise<string> {
    const idToken = decryptSessionTokens(deps.keyring, session, session.tokens)?.idToken;
    try {
      return (await oidc.endSessionUrl(idToken)).href;
    } catch {
      // Keycloak is unavailable: the user is signed out of the app, but cannot be signed out of Keycloak.
      return `${deps.publicUrl}/`;
    }
  }

  return {
    async begin(request, response, { max_age: maxAgeS, return_to: returnTo }) {
      const { url, ...secrets } = await oidc.startSignIn(maxAgeS);
      deps.loginStates.save(request, response, { ...secrets, maxAgeS, returnTo });
      return url.href;
    },

    async complete(request, response) {
      // Two sessions are refused here as well, before one of them is replaced.
      await sessions.refuseSeveral(request);
      const { state } = request.query;
      const login =
        typeof state === 'string' ? deps.loginStates.consume(request, response, state) : undefined;
      if (login === undefined) throw unknownSignIn();
      const query = request.originalUrl.slice(request.originalUrl.indexOf('?'));
      const signedIn = await oidc.finishSignIn(query, login);
      // A sign-in always uses the current account data.
      deps.userCache.invalidate(signedIn.userId);
      if ((await deps.userCache.findUser(signedIn.userId)) === undefined) throw unauthenticated();
      await rateLimit.consume(signedIn.userId);
      // Before the session is created, so that every sign-in is audited.
      await deps.recordSignIn(signedIn.userId, getRequestContext(response).requestId);
      await createSession(request, response, signedIn);
      return deps.publicUrl + login.returnTo;
    },

    async signOut(request, response) {
      sessions.clearCookie(response);
      let location = `${deps.publicUrl}/`;
      for (const id of deps.sessionCookie.listSessionIds(request)) {
        const content = await store.findSession(id);
        if (content === undefined) continue;
        const session = { ...content, id };
        await deps.logout.endSession(session);
        location = await endSessionUrl(session);
      }
      return location;
    },
  };
}

function unknownSignIn(): AppError {
  return new AppError('validation_failed', 'This sign-in is unknown or has expired. Please sign in again.');
}

function signedOutDuringSignIn(): AppError {
  return new AppError('unauthenticated', 'You were signed out during the sign-in. Please sign in again.');
}
