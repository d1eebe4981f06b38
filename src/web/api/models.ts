import { queryOptions } from '@tanstack/react-query';
import { z } from 'zod';
import { callApi } from './call.ts';

const Models = z.object({ data: z.array(z.object({ id: z.string() })) });

/** The models that the user's keys or the system serve. */
export const modelsQuery = queryOptions({
  queryKey: ['models'],
  queryFn: async ({ signal }) => (await callApi('/v1/models', Models, { signal })).data,
  staleTime: 300_000,
});
