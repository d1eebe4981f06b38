import { z } from 'zod';
import { jsonRoute, type Route } from '../http/routes.ts';
import { BYOK_TIER } from '../tiers.ts';
import {
  AddKey,
  DeleteKeyParams,
  DeleteKeyQuery,
  KeyAdded,
  KeysDeleted,
  KeyStats,
  KeyView,
  ProviderView,
} from './schema.ts';
import type { KeyService } from './service.ts';

const READ = { scope: 'keys:read' } as const;

/** The keys of the person who asks. Reading and deleting are open to every tier. */
export function keyRoutes({ keys }: { keys: KeyService }): Route[] {
  return [
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/providers',
      access: READ,
      response: z.array(ProviderView),
      handle: ({ principal }) => keys.listProviders(principal.user),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/keys',
      access: READ,
      response: z.array(KeyView),
      handle: ({ principal }) => keys.listKeys(principal.user),
    }),
    jsonRoute({
      method: 'get',
      path: '/api/v1/byok/stats',
      access: READ,
      response: KeyStats,
      handle: ({ principal }) => keys.stats(principal.user),
    }),
    jsonRoute({
      method: 'post',
      path: '/api/v1/byok/keys/add',
      access: 'session',
      tier: BYOK_TIER,
      body: AddKey,
      response: KeyAdded,
      status: 201,
      handle: ({ principal, body, requestId }) => keys.add(principal, body, requestId),
    }),
    jsonRoute({
      method: 'delete',
      path: '/api/v1/byok/keys/:provider',
      access: 'session',
      params: DeleteKeyParams,
      query: DeleteKeyQuery,
      response: KeysDeleted,
      handle: ({ principal, params, query, requestId }) =>
        keys.remove(principal, params.provider, query.key_id, requestId),
    }),
  ];
}
