import type { Principal } from '../http/principal.ts';
import { jsonRoute, rawRoute, type Call, type Route } from '../http/routes.ts';
import type { Chat } from './chat.ts';
import { CLIENT_GONE } from './exchange.ts';
import { HOP_HEADER } from '../lib/hop.ts';
import type { ListModels } from './models.ts';
import type { OpenRequests } from '../http/open-requests.ts';
import { routeAnswer } from './route-answer.ts';
import type { Routing } from './routing.ts';
import { RouteAnswer, RouteQuery } from './schema.ts';

export interface GatewayRouteDeps {
  chat: Chat;
  listModels: ListModels;
  routing: Routing;
  openRequests: OpenRequests;
}

/** `/v1` in the providers' own shapes, and the explanation of its choices. */
export function gatewayRoutes({ chat, listModels, routing, openRequests }: GatewayRouteDeps): Route[] {
  return [
    rawRoute({
      method: 'post',
      path: '/v1/chat/completions',
      access: { scope: 'chat' },
      handle: (call, request, response) => chat.complete(signedIn(call), request, response),
    }),
    rawRoute({
      method: 'get',
      path: '/v1/models',
      access: { scope: 'chat' },
      async handle(call, request, response) {
        const { user } = signedIn(call).principal;
        openRequests.enter(user.id, response);
        const gone = new AbortController();
        response.once('close', () => {
          if (!response.writableFinished) gone.abort(CLIENT_GONE);
        });
        try {
          const receivedHop = request.get(HOP_HEADER);
          response.json(await listModels({ user, receivedHop, signal: gone.signal }));
        } catch (error) {
          if (gone.signal.reason !== CLIENT_GONE) throw error;
        }
      },
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/route',
      access: { scope: 'keys:read' },
      query: RouteQuery,
      response: RouteAnswer,
      handle: async ({ principal, query }) => routeAnswer(await routing.decide(principal.user, query.model)),
    }),
  ];
}

function signedIn(call: Call): Call & { principal: Principal } {
  if (call.principal === null) throw new Error('this route needs a principal');
  return { ...call, principal: call.principal };
}
