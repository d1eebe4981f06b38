import { z } from 'zod';
import { jsonRoute, type Route } from '../http/route.ts';
import { CreateToken, TokenCreated, TokenParams, TokenRevoked, TokenView } from './schema.ts';
import type { TokenService } from './service.ts';

export { refuseTokenInUrl } from './refuse-token-in-url.ts';

const BASE = '/api/v1/tokens';

/** The signed-in user's personal tokens, of any tier. By session only: a token creates no other token. */
export function tokenRoutes({ tokens }: { tokens: TokenService }): Route[] {
  return [
    jsonRoute({
      method: 'post',
      path: BASE,
      access: 'session',
      body: CreateToken,
      response: TokenCreated,
      status: 201,
      handle: ({ principal, body, requestId }) => tokens.create(principal.user.id, body, requestId),
    }),
    jsonRoute({
      method: 'get',
      path: BASE,
      access: 'session',
      response: z.array(TokenView),
      handle: ({ principal }) => tokens.list(principal.user.id),
    }),
    jsonRoute({
      method: 'delete',
      path: `${BASE}/:id`,
      access: 'session',
      params: TokenParams,
      response: TokenRevoked,
      async handle({ principal, params, requestId }) {
        await tokens.revoke(principal.user.id, params.id, requestId);
        return { message: 'The token is revoked.' };
      },
    }),
  ];
}
