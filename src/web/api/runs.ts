import { infiniteQueryOptions, queryOptions, useMutation, useQueryClient } from '@tanstack/react-query';
import { z } from 'zod';
import { RunDetails, RunPage, type RunView, type StartRun } from '../../runs/schema.ts';
import { callApi } from './call.ts';

const BASE = '/api/v1/runs';
const PAGE_SIZE = 50;
/** While a run that is not finished is shown in a list. */
const POLL_INTERVAL_MS = 3_000;

const RunStarted = z.object({ run_id: z.string() });

/** Empty values do not filter. */
export interface RunFilter {
  server_id: string;
  status: RunView['status'] | '';
  language: NonNullable<RunView['language']> | '';
}

/** The user's runs, the newest first, a page at a time. */
export const runsQuery = (filter: RunFilter) =>
  infiniteQueryOptions({
    queryKey: ['runs', 'list', filter],
    queryFn: ({ pageParam, signal }) => {
      const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
      for (const [name, value] of Object.entries({ ...filter, cursor: pageParam }))
        if (value) query.set(name, value);
      return callApi(`${BASE}?${String(query)}`, RunPage, { signal });
    },
    initialPageParam: null as string | null,
    getNextPageParam: ({ next_cursor: cursor }) => cursor,
    refetchInterval: ({ state }) =>
      state.data?.pages.some(({ data }) => data.some(({ status }) => status !== 'finished')) === true
        ? POLL_INTERVAL_MS
        : false,
  });

export const runQuery = (id: string) =>
  queryOptions({
    queryKey: ['runs', 'one', id],
    queryFn: ({ signal }) => callApi(`${BASE}/${encodeURIComponent(id)}`, RunDetails, { signal }),
  });

export type RunRequest = z.input<typeof StartRun>;

/** Starts a run without waiting for its exit. */
export function useStartRun() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: ({ serverId, request }: { serverId: string; request: RunRequest }) =>
      callApi(`/api/v1/execution-servers/${serverId}/run`, RunStarted, {
        method: 'POST',
        body: request,
        respondsAsync: true,
      }),
    onSuccess: () => client.invalidateQueries({ queryKey: ['runs', 'list'] }),
  });
}

export function useCancelRun(id: string) {
  return useMutation({ mutationFn: () => callApi(`${BASE}/${id}`, RunStarted, { method: 'DELETE' }) });
}
