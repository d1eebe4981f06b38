import type { Request, Response } from 'express';
import { summarizeError } from '../http/errors.ts';
import type { BodyReservation } from '../http/body-budget.ts';
import { readBody } from '../http/read-body.ts';
import { jsonRoute, parseInput, rawRoute, type Route } from '../http/route.ts';
import { z } from 'zod';
import { AppError, isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Logout } from './logout.ts';
import { LoginQuery, Me, SessionParams, SessionsEnded, SessionView, toMe } from './schema.ts';
import type { SessionCookie } from './session-cookie.ts';
import type { SessionStore } from './session-store.ts';
import type { SignInFlow } from './sign-in.ts';
import type { TokenVerifier } from './token-verifier.ts';
import type { UserSessions } from './user-sessions.ts';

export interface IdentityRoutesDeps {
  sessionCookie: SessionCookie;
  signIn: SignInFlow;
  tokens: TokenVerifier;
  store: SessionStore;
  logout: Logout;
  userSessions: UserSessions;
  /** Removes the cookie of the session. */
  clearCookie: (response: Response) => void;
  /** @throws AppError `csrf` for a cross-site write. */
  refuseCrossSite(request: Request): void;
  /** Returns true if the user can run code on this installation's own machine. */
  canRunLocally(userId: string): Promise<boolean>;
}

/** `/auth/*`, `GET /api/v1/me` and `/api/v1/sessions`. */
export function identityRoutes(deps: IdentityRoutesDeps): Route[] {
  return [
    rawRoute({
      method: 'get',
      path: '/auth/login',
      access: 'public',
      handle: ({ log }, request, response) =>
        redirectTo(request, response, log, () =>
          deps.signIn.begin(request, response, parseInput(LoginQuery, request.query, 'query')),
        ),
    }),
    rawRoute({
      method: 'get',
      path: '/auth/callback',
      access: 'public',
      handle: ({ log }, request, response) =>
        redirectTo(request, response, log, () => deps.signIn.complete(request, response)),
    }),
    rawRoute({
      method: 'post',
      path: '/auth/logout',
      // Not `session`: signing out must work while Keycloak is unavailable and no user can be authenticated.
      access: 'public',
      async handle(_call, request, response) {
        if (deps.sessionCookie.listSessionIds(request).length > 0) deps.refuseCrossSite(request);
        response.setHeader('cache-control', 'no-store');
        response.redirect(303, await deps.signIn.signOut(request, response));
      },
    }),
    rawRoute({
      method: 'post',
      path: '/auth/backchannel-logout',
      access: 'public',
      handle: ({ bodyReservation }, request, response) =>
        backchannelLogout(deps, request, response, bodyReservation),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/me',
      access: { scope: 'keys:read' },
      response: Me,
      handle: async ({ principal: { user } }) => toMe(user, await deps.canRunLocally(user.id)),
    }),
    ...sessionRoutes(deps),
  ];
}

/** The signed-in user's sessions. By session only: a token must not end the sign-in of its user. */
function sessionRoutes({ userSessions, clearCookie }: IdentityRoutesDeps): Route[] {
  const path = '/api/v1/sessions';
  const access = 'session';
  return [
    jsonRoute({
      ...{ method: 'get', path, access },
      response: z.array(SessionView),
      handle: ({ principal }) => userSessions.list(principal),
    }),
    jsonRoute({
      ...{ method: 'delete', path, access },
      response: SessionsEnded,
      async handle({ principal, requestId }, _request, response) {
        const { result, isCurrentEnded } = await userSessions.endAll(principal, requestId);
        if (isCurrentEnded) clearCookie(response);
        return result;
      },
    }),
    jsonRoute({
      ...{ method: 'delete', path: `${path}/:id`, access },
      params: SessionParams,
      response: SessionsEnded,
      async handle({ principal, params, requestId }, _request, response) {
        const { result, isCurrentEnded } = await userSessions.end(principal, params.id, requestId);
        if (isCurrentEnded) clearCookie(response);
        return result;
      },
    }),
  ];
}

/** Redirects. On failure, browsers get an error page with a link to sign in; other clients get problem+json. */
async function redirectTo(
  request: Request,
  response: Response,
  log: Log,
  getLocation: () => Promise<string>,
): Promise<void> {
  response.setHeader('cache-control', 'no-store');
  try {
    response.redirect(303, await getLocation());
  } catch (error) {
    if (!isAppError(error) || request.accepts(['json', 'html']) !== 'html') throw error;
    log.warn(summarizeError(error), 'sign-in failed');
    response
      .status(error.status)
      .set(error.headers)
      .set(
        'content-security-policy',
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      )
      .type('html')
      .send(failurePage(error));
  }
}

/** `error.detail` is a fixed text of the app, so the page shows nothing from the request. */
function failurePage(error: AppError): string {
  return `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Sign-in failed</title></head>
<body>
<main>
<h1>Sign-in failed</h1>
<p>${error.detail}</p>
<p><a href="/auth/login">Sign in again</a></p>
</main>
</body>
</html>
`;
}

const MAX_FORM_BYTES = 64 * 1024;

/**
 * Handles Keycloak's logout calls (OpenID Connect Back-Channel Logout 1.0, section 2.5 to 2.8). Keycloak does not
 * retry a failed call; polled events cover that case.
 */
async function backchannelLogout(
  deps: IdentityRoutesDeps,
  request: Request,
  response: Response,
  reservation: BodyReservation,
): Promise<void> {
  response.setHeader('cache-control', 'no-store');
  const form = await readForm(request, reservation);
  const [logoutToken, ...others] = form.getAll('logout_token');
  const isSingle = logoutToken !== undefined && others.length === 0;
  const token = isSingle ? await deps.tokens.verifyLogoutToken(logoutToken) : undefined;
  if (token === undefined || !(await deps.store.markLogoutTokenSeen(token.jti, token.expiresAtMs))) {
    throw new AppError('validation_failed', 'The logout token is not valid.');
  }
  if (token.keycloakSessionId !== undefined) await deps.logout.endKeycloakSessions([token.keycloakSessionId]);
  else if (token.userId !== undefined) await deps.logout.endUserUntil(token.userId, token.issuedAtMs);
  response.status(200).end();
}

/** An empty form when the body is none. @throws what `readBody` throws. */
async function readForm(request: Request, reservation: BodyReservation): Promise<URLSearchParams> {
  const body = await readBody(request, { maxBytes: MAX_FORM_BYTES, reservation });
  const isForm = request.is('application/x-www-form-urlencoded') !== false;
  return new URLSearchParams(isForm ? body.toString() : '');
}
