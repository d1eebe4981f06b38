import { z } from 'zod';
import { jsonRoute, type Route } from '../http/route.ts';
import type { Idempotency } from '../idempotency/service.ts';
import { randomId } from '../lib/ids.ts';
import { CreateToken, TokenCreated, TokenParams, TokenRevoked, TokenView } from './schema.ts';
import type { TokenService } from './service.ts';

export { refuseTokenInUrl } from './refuse-token-in-url.ts';

const BASE = '/api/v1/tokens';

export interface TokenRouteDeps {
  tokens: TokenService;
  idempotency: Idempotency;
}

/** The signed-in user's personal tokens, of any tier. By session only: a token creates no other token. */
export function tokenRoutes({ tokens, idempotency }: TokenRouteDeps): Route[] {
  return [
    jsonRoute({
      method: 'post',
      path: BASE,
      access: 'session',
      body: CreateToken,
      response: TokenCreated,
      status: 201,
      handle: ({ principal, body, requestId }, request, response) =>
        idempotency.createOnce(
          { principal, request, response, input: body },
          { createId: randomId, create: (id) => tokens.create(principal, id, body, requestId) },
        ),
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
