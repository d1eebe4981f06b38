import type { Request, Response } from 'express';
import { callFacts } from '../http/routes.ts';
import { unauthenticated, AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Directory } from './directory.ts';
import type { LiveWork } from './live-work.ts';
import type { LoginStates } from './login-state.ts';
import type { Oidc, SignedIn } from './oidc.ts';
import { safeReturnTo } from './return-to.ts';
import type { StoredSession } from './schema.ts';
import type { SessionStore } from './session-store.ts';
import { openTokens, sealTokens } from './session-tokens.ts';
import type { Sessions } from './sessions.ts';
import type { Logout } from './logout.ts';

export interface SignInDeps {
  publicUrl: string;
  oidc: Oidc;
  loginStates: LoginStates;
  sessions: Sessions;
  store: SessionStore;
  keyring: Keyring;
  directory: Directory;
  liveWork: LiveWork;
  logout: Logout;
  /** Puts a sign-in on the person's audit trail. */
  recordSignIn(userId: string, requestId: string): Promise<void>;
}

/** Signing in and out in the browser. Each answers the address to go to next. */
export interface SignIn {
  /** @throws AppError `keycloak_unavailable`. */
  begin(request: Request, response: Response): Promise<string>;
  /** @throws AppError `validation_failed`, `unauthenticated`, `keycloak_unavailable`, `database_unavailable`. */
  complete(request: Request, response: Response): Promise<string>;
  /** @throws AppError `database_unavailable`. */
  signOut(request: Request, response: Response): Promise<string>;
}

export function createSignIn(deps: SignInDeps): SignIn {
  const { oidc, sessions, store } = deps;

  /** Saves first, then looks for a logout that came meanwhile; the order is explained in logout.ts. */
  async function makeSession(request: Request, response: Response, signedIn: SignedIn): Promise<void> {
    const previous = await sessions.find(request, response);
    const { userId, keycloakSessionId, signedInAtMs, refreshAtMs } = signedIn;
    const tokens = sealTokens(deps.keyring, signedIn, signedIn);
    try {
      const content = { userId, keycloakSessionId, signedInAtMs, refreshAtMs, tokens };
      await sessions.replace(request, response, content);
      if (previous !== undefined) deps.liveWork.endSession(previous.id);
      if (await store.isLoggedOut(signedIn)) throw signedOutMeanwhile();
    } catch (error) {
      await sessions.discard(request).catch(() => undefined);
      throw error;
    }
  }

  async function endSessionUrl(session: StoredSession): Promise<string> {
    const idToken = openTokens(deps.keyring, session, session.tokens)?.idToken;
    try {
      return (await oidc.endSessionUrl(idToken)).href;
    } catch {
      // Keycloak is away: here the user is signed out, there they cannot be.
      return `${deps.publicUrl}/`;
    }
  }

  return {
    async begin(request, response) {
      const { url, ...secrets } = await oidc.start();
      const returnTo = safeReturnTo(request.query['return_to'], deps.publicUrl);
      deps.loginStates.keep(request, response, { ...secrets, returnTo });
      return url.href;
    },

    async complete(request, response) {
      const { state } = request.query;
      const login = typeof state === 'string' ? deps.loginStates.take(request, response, state) : undefined;
      if (login === undefined) throw unknownSignIn();
      const query = request.originalUrl.slice(request.originalUrl.indexOf('?'));
      const signedIn = await oidc.finish(query, login);
      // Read anew: a sign-in is where a change of an account is expected to show.
      deps.directory.forget(signedIn.userId);
      if ((await deps.directory.findUser(signedIn.userId)) === undefined) throw unauthenticated();
      // Before the session: no sign-in goes untold.
      await deps.recordSignIn(signedIn.userId, callFacts(response).requestId);
      await makeSession(request, response, signedIn);
      return login.returnTo;
    },

    async signOut(request, response) {
      const session = await sessions.find(request, response);
      sessions.clearCookie(response);
      if (session === undefined) return `${deps.publicUrl}/`;
      await deps.logout.endOwn(session);
      return endSessionUrl(session);
    },
  };
}

function unknownSignIn(): AppError {
  return new AppError(
    'validation_failed',
    'This sign-in is not known here or took too long. Please sign in again.',
  );
}

function signedOutMeanwhile(): AppError {
  return new AppError('unauthenticated', 'You were signed out in the meantime. Please sign in again.');
}
