import { z } from 'zod';
import { jsonRoute, type Route } from '../http/route.ts';
import { setETag } from '../http/versions.ts';
import type { Idempotency } from '../idempotency/service.ts';
import { randomId } from '../lib/ids.ts';
import { BYOK_TIER } from '../config/tiers.ts';
import {
  AddKey,
  KeyAdded,
  KeyParams,
  KeyQuery,
  KeysDeleted,
  KeyStats,
  KeysTested,
  KeyView,
  ProviderParams,
  ProviderView,
  UpdateKey,
} from './schema.ts';
import type { KeyOperations } from './service.ts';

const READ = { scope: 'keys:read' } as const;
const WRITE = { scope: 'keys:write' } as const;
/** For adding, changing and testing keys. */
const CHANGE = { access: WRITE, tier: BYOK_TIER } as const;

export interface KeyRouteDeps {
  keys: KeyOperations;
  idempotency: Pick<Idempotency, 'createOnce'>;
}

/** The signed-in user's keys. Every tier may read and delete. */
export function keyRoutes(deps: KeyRouteDeps): Route[] {
  return [...readRoutes(deps.keys), addRoute(deps), ...changeRoutes(deps.keys)];
}

function readRoutes(keys: KeyOperations): Route[] {
  return [
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/providers',
      access: READ,
      response: z.array(ProviderView),
      handle: ({ principal }) => keys.listProviders(principal),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/keys',
      access: READ,
      response: z.array(KeyView),
      handle: ({ principal }) => keys.listKeys(principal),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/stats',
      access: READ,
      response: KeyStats,
      handle: ({ principal }) => keys.stats(principal),
    }),
  ];
}

function addRoute({ keys, idempotency }: KeyRouteDeps): Route {
  return jsonRoute({
    method: 'post',
    path: '/api/v1/byok/keys/add',
    ...CHANGE,
    body: AddKey,
    response: KeyAdded,
    status: ({ key_id }) => (key_id === undefined ? 201 : 200),
    async handle({ principal, body, requestId }, request, response) {
      const ifMatch = request.get('if-match');
      const added =
        body.key_id === undefined
          ? await idempotency.createOnce(
              { principal, request, response, input: body },
              {
                createId: randomId,
                create: (id) => keys.add(principal, body, requestId, { ifMatch, id }),
                result: KeyAdded,
              },
            )
          : await keys.add(principal, body, requestId, { ifMatch });
      setETag(response, added.key.version);
      return added;
    },
  });
}

function changeRoutes(keys: KeyOperations): Route[] {
  return [
    jsonRoute({
      method: 'patch',
      path: '/api/v1/byok/keys/:provider/:key_id',
      ...CHANGE,
      params: KeyParams,
      body: UpdateKey,
      response: KeyView,
      async handle({ principal, params, body, requestId }, request, response) {
        const ifMatch = request.get('if-match');
        const target = { provider: params.provider, keyId: params.key_id, ifMatch };
        const key = await keys.update(principal, target, body, requestId);
        setETag(response, key.version);
        return key;
      },
    }),
    jsonRoute({
      method: 'post',
      path: '/api/v1/byok/keys/test/:provider',
      ...CHANGE,
      params: ProviderParams,
      query: KeyQuery,
      response: KeysTested,
      handle: ({ principal, params, query, requestId }) =>
        keys.test(principal, params.provider, query.key_id, requestId),
    }),
    jsonRoute({
      method: 'delete',
      path: '/api/v1/byok/keys/:provider',
      access: WRITE,
      params: ProviderParams,
      query: KeyQuery,
      response: KeysDeleted,
      handle: ({ principal, params, query, requestId }, request) =>
        keys.remove(principal, params.provider, query.key_id, requestId, request.get('if-match')),
    }),
  ];
}
