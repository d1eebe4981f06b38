import type { Request, Response } from 'express';
import helmet from 'helmet';
import type { Authenticate, User } from '../http/principal.ts';
import { rawRoute, type Route } from '../http/routes.ts';
import { isAppError } from '../lib/errors.ts';
import { HOME_CSS, homePage } from './page.ts';

export interface HomeDeps {
  authenticate: Authenticate;
  /** Says which key would answer a request of the user that names no model. */
  explainRoute(user: User): Promise<string>;
  publicUrl: string;
  /** Where the sign-out form may lead: the browser follows its redirect to Keycloak. */
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
    strictTransportSecurity: !deps.isLocal,
  });

  async function findUser(request: Request, response: Response): Promise<User | null> {
    try {
      return (await deps.authenticate(request, response)).user;
    } catch (error) {
      if (isAppError(error, 'unauthenticated')) return null;
      throw error;
    }
  }

  return [
    rawRoute({
      method: 'get',
      path: '/',
      access: 'public',
      async handle(_call, request, response) {
        const user = await findUser(request, response);
        const answeredBy = user === null ? null : await deps.explainRoute(user);
        const { publicUrl, cookieName, isLocal } = deps;
        headers(request, response, () => undefined);
        response.setHeader('cache-control', 'no-store');
        response.type('html').send(homePage({ publicUrl, cookieName, user, answeredBy, isLocal }));
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
