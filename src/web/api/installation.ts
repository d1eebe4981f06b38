import { queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { z } from 'zod';
import { About } from '../../about/schema.ts';
import { SessionsEnded, SessionView } from '../../identity/schema.ts';
import { callApi } from './call.ts';

export const aboutQuery = queryOptions({
  queryKey: ['about'],
  queryFn: ({ signal }) => callApi('/api/v1/about', About, { signal }),
  staleTime: Infinity,
});

export const sessionsQuery = queryOptions({
  queryKey: ['sessions'],
  queryFn: ({ signal }) => callApi('/api/v1/sessions', z.array(SessionView), { signal }),
});

/** Ends one session, with those of the same sign-in in Keycloak. */
export function useEndSession() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => callApi(`/api/v1/sessions/${id}`, SessionsEnded, { method: 'DELETE' }),
    onSettled: () => client.invalidateQueries({ queryKey: sessionsQuery.queryKey }),
  });
}
