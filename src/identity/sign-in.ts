import type { Request, Response } from 'express';
import { getRequestContext } from '../http/route.ts';
import { unauthenticated, AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { UserCache } from './user-cache.ts';
import type { ActiveWork } from './active-work.ts';
import type { LoginStates } from './login-state.ts';
import type { OidcClient, SignInResult } from './oidc.ts';
import { safeReturnTo } from './return-to.ts';
import type { StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import { decryptSessionTokens, encryptSessionTokens } from './session-tokens.ts';
import type { Sessions } from './sessions.ts';
import type { Logout } from './logout.ts';

export interface SignInFlowDeps {
  publicUrl: string;
  oidc: OidcClient;
  loginStates: LoginStates;
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
  begin(request: Request, response: Response): Promise<string>;
  /** @throws AppError `validation_failed`, `unauthenticated`, `keycloak_unavailable`, `database_unavailable`. */
  complete(request: Request, response: Response): Promise<string>;
  /** @throws AppError `database_unavailable`. */
  signOut(request: Request, response: Response): Promise<string>;
}

export function createSignInFlow(deps: SignInFlowDeps): SignInFlow {
  const { oidc, sessions, store } = deps;

  /** Saves the session, then checks for a logout during the sign-in. logout.ts explains the order. */
  async function createSession(request: Request, response: Response, signedIn: SignInResult): Promise<void> {
    const previous = await sessions.find(request, response);
    const { userId, keycloakSessionId, signedInAtMs, refreshAtMs } = signedIn;
    const tokens = encryptSessionTokens(deps.keyring, signedIn, signedIn);
    try {
      const content = { userId, keycloakSessionId, signedInAtMs, refreshAtMs, tokens };
      await sessions.replace(request, response, content);
      if (previous !== undefined) deps.activeWork.endSession(previous.id);
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
    async begin(request, response) {
      const { url, ...secrets } = await oidc.startSignIn();
      const returnTo = safeReturnTo(request.query['return_to'], deps.publicUrl);
      deps.loginStates.save(request, response, { ...secrets, returnTo });
      return url.href;
    },

    async complete(request, response) {
      const { state } = request.query;
      const login =
        typeof state === 'string' ? deps.loginStates.consume(request, response, state) : undefined;
      if (login === undefined) throw unknownSignIn();
      const query = request.originalUrl.slice(request.originalUrl.indexOf('?'));
      const signedIn = await oidc.finishSignIn(query, login);
      // A sign-in always uses the current account data.
      deps.userCache.invalidate(signedIn.userId);
      if ((await deps.userCache.findUser(signedIn.userId)) === undefined) throw unauthenticated();
      // Before the session is created, so that every sign-in is audited.
      await deps.recordSignIn(signedIn.userId, getRequestContext(response).requestId);
      await createSession(request, response, signedIn);
      return login.returnTo;
    },

    async signOut(request, response) {
      const session = await sessions.find(request, response);
      sessions.clearCookie(response);
      if (session === undefined) return `${deps.publicUrl}/`;
      await deps.logout.endSession(session);
      return endSessionUrl(session);
    },
  };
}

function unknownSignIn(): AppError {
  return new AppError('validation_failed', 'This sign-in is unknown or has expired. Please sign in again.');
}

function signedOutDuringSignIn(): AppError {
  return new AppError('unauthenticated', 'You were signed out during the sign-in. Please sign in again.');
}
