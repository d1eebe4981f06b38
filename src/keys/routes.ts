import { z } from 'zod';
import { jsonRoute, type Route } from '../http/route.ts';
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

/** The signed-in user's keys. Every tier may read and delete. */
export function keyRoutes({ keys }: { keys: KeyOperations }): Route[] {
  return [...readRoutes(keys), ...changeRoutes(keys)];
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

function changeRoutes(keys: KeyOperations): Route[] {
  return [
    jsonRoute({
      method: 'post',
      path: '/api/v1/byok/keys/add',
      ...CHANGE,
      body: AddKey,
      response: KeyAdded,
      status: ({ key_id }) => (key_id === undefined ? 201 : 200),
      handle: ({ principal, body, requestId }) => keys.add(principal, body, requestId),
    }),
    jsonRoute({
      method: 'patch',
      path: '/api/v1/byok/keys/:provider/:key_id',
      ...CHANGE,
      params: KeyParams,
      body: UpdateKey,
      response: KeyView,
      handle: ({ principal, params, body, requestId }) =>
        keys.update(principal, { provider: params.provider, keyId: params.key_id }, body, requestId),
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
      handle: ({ principal, params, query, requestId }) =>
        keys.remove(principal, params.provider, query.key_id, requestId),
    }),
  ];
}
