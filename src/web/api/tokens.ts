import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { z } from 'zod';
import { TokenCreated, TokenRevoked, TokenView, type CreateToken } from '../../tokens/schema.ts';
import { callApi } from './call.ts';

const BASE = '/api/v1/tokens';

export type TokenScope = TokenView['scopes'][number];

export const tokensQuery = queryOptions({
  queryKey: ['tokens'],
  queryFn: ({ signal }) => callApi(BASE, z.array(TokenView), { signal }),
});

/** The response holds the token: it is not kept by the cache of mutations after the dialog is closed (`reset`). */
export function useCreateToken() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: z.input<typeof CreateToken>) => callApi(BASE, TokenCreated, { method: 'POST', body }),
    onSuccess: () => client.invalidateQueries({ queryKey: tokensQuery.queryKey }),
    gcTime: 0,
  });
}

export function useRevokeToken() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => callApi(`${BASE}/${id}`, TokenRevoked, { method: 'DELETE' }),
    onSettled: () => client.invalidateQueries({ queryKey: tokensQuery.queryKey }),
  });
}
