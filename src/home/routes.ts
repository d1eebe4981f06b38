import type { Request, Response } from 'express';
import helmet from 'helmet';
import { summarizeError } from '../http/errors.ts';
import type { Authenticate, Caller } from '../http/principal.ts';
import { rawRoute, type Route } from '../http/route.ts';
import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { HOME_CSS, renderHomePage, type HomeState } from './page.ts';

export interface HomeDeps {
  authenticate: Authenticate;
  /** Describes which key would serve a request of the user that names no model. */
  explainRoute(caller: Caller): Promise<string>;
  publicUrl: string;
  /** Allowed as a form target, since the sign-out form redirects to Keycloak. */
  keycloakUrl: string;
  cookieName: string;
  isLocal: boolean;
}

/** `GET /`, without scripts. */
export function homeRoutes(deps: HomeDeps): Route[] {
  const headers = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        styleSrc: ["'self'"],
        formAction: ["'self'", new URL(deps.keycloakUrl).origin],
        baseUri: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    // With `no-referrer` the browser would send the sign-out form with `Origin: null`, like another site.
    referrerPolicy: { policy: 'same-origin' },
    // Set for all responses (`createSecurityHeaders`).
    strictTransportSecurity: false,
  });

  async function readState(request: Request, response: Response, log: Log): Promise<HomeState> {
    try {
      const principal = await deps.authenticate(request, response);
      return {
        kind: 'signed_in',
        user: principal.user,
        routeSentence: await deps.explainRoute(principal),
      };
    } catch (error) {
      if (isAppError(error, 'unauthenticated')) return { kind: 'signed_out' };
      if (!isAppError(error)) throw error;
      log.warn(summarizeError(error), 'the page cannot show the signed-in user');
      response.status(error.status).set(error.headers);
      return { kind: 'failed', error };
    }
  }

  return [
    rawRoute({
      method: 'get',
      path: '/',
      access: 'public',
      async handle({ log }, request, response) {
        const state = await readState(request, response, log);
        const { publicUrl, cookieName, isLocal } = deps;
        headers(request, response, () => undefined);
        response.setHeader('cache-control', 'no-store');
        response.type('html').send(renderHomePage({ publicUrl, cookieName, isLocal, state }));
      },
    }),
    rawRoute({
      method: 'get',
      path: '/home.css',
      access: 'public',
      handle: (_call, _request, response) => {
        response.type('css').send(HOME_CSS);
      },
    }),
  ];
}
