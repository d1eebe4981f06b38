import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { z } from 'zod';
import { RoutePreview } from '../../gateway/schema.ts';
import {
  KeyAdded,
  KeysDeleted,
  KeyStats,
  KeysTested,
  KeyView,
  ProviderView,
  type AddKey,
} from '../../keys/schema.ts';
import { UsageTotals } from '../../usage/schema.ts';
import { callApi } from './call.ts';

const DAY_MS = 86_400_000;
const USAGE_DAYS = 30;

export const providersQuery = queryOptions({
  queryKey: ['keys', 'providers'],
  queryFn: ({ signal }) => callApi('/api/v1/byok/providers', z.array(ProviderView), { signal }),
});

export const keysQuery = queryOptions({
  queryKey: ['keys', 'list'],
  queryFn: ({ signal }) => callApi('/api/v1/byok/keys', z.array(KeyView), { signal }),
});

export const statsQuery = queryOptions({
  queryKey: ['keys', 'stats'],
  queryFn: ({ signal }) => callApi('/api/v1/byok/stats', KeyStats, { signal }),
});

/** Who pays for a model of this provider. */
export const routeQuery = (provider: string, model: string) =>
  queryOptions({
    queryKey: ['keys', 'route', provider, model],
    queryFn: ({ signal }) =>
      callApi(`/api/v1/byok/route?model=${encodeURIComponent(`${provider}/${model}`)}`, RoutePreview, {
        signal,
      }),
  });

/** Tokens and cost of each key in the last 30 days. */
export const keyUsageQuery = queryOptions({
  queryKey: ['usage', 'by-key'],
  queryFn: ({ signal }) => {
    const from = new Date(Date.now() - USAGE_DAYS * DAY_MS).toISOString().slice(0, 10);
    return callApi(`/api/v1/usage?group=key&from=${from}`, UsageTotals, { signal });
  },
  staleTime: 60_000,
});

export type KeyRequest = z.input<typeof AddKey>;

/** Every change reads all lists again: counts, routes and keys depend on each other. */
function useKeyMutation<Input, Output>(mutationFn: (input: Input) => Promise<Output>) {
  const client = useQueryClient();
  return useMutation({
    mutationFn,
    onSettled: () => client.invalidateQueries({ queryKey: ['keys'] }),
  });
}

/** Adds a key, or replaces the one of `key_id`. */
export const useAddKey = () =>
  useKeyMutation((body: KeyRequest) => callApi('/api/v1/byok/keys/add', KeyAdded, { method: 'POST', body }));

export interface KeyChange {
  key: KeyView;
  change: { label?: string; enabled?: boolean; expires_at?: string | null };
}

export const useUpdateKey = () =>
  useKeyMutation(({ key, change }: KeyChange) =>
    callApi(`/api/v1/byok/keys/${key.provider}/${key.id}`, KeyView, { method: 'PATCH', body: change }),
  );

export const useTestKey = () =>
  useKeyMutation((key: KeyView) =>
    callApi(`/api/v1/byok/keys/test/${key.provider}?key_id=${key.id}`, KeysTested, { method: 'POST' }),
  );

/** @param keyId undefined deletes all personal keys of the provider. */
export const useDeleteKeys = () =>
  useKeyMutation(({ provider, keyId }: { provider: string; keyId?: string }) =>
    callApi(`/api/v1/byok/keys/${provider}${keyId === undefined ? '' : `?key_id=${keyId}`}`, KeysDeleted, {
      method: 'DELETE',
    }),
  );
