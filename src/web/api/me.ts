import { queryOptions, useSuspenseQuery } from '@tanstack/react-query';
import type { z } from 'zod';
import { Me } from '../../identity/schema.ts';
import { callApi } from './call.ts';

export type CurrentUser = z.output<typeof Me>;

export const meQuery = queryOptions({
  queryKey: ['me'],
  queryFn: ({ signal }) => callApi('/api/v1/me', Me, { signal }),
  // Read whenever the user comes back to the tab: another one may be signed in now, or the tier is another one.
  staleTime: 0,
});

/** The signed-in user. Only below the shell, which shows its children after the user was read. */
export function useMe(): CurrentUser {
  return useSuspenseQuery(meQuery).data;
}
