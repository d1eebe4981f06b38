import { infiniteQueryOptions } from '@tanstack/react-query';
import { AuditPage } from '../../audit/schema.ts';
import { callApi } from './call.ts';

const PAGE_SIZE = 100;

export type ListedEvent = AuditPage['data'][number];

/** Empty values do not filter. Days are UTC, both included. */
export interface AuditFilter {
  action: string;
  from: string;
  to: string;
}

/** The user's events, the newest first, a page at a time. */
export const auditQuery = (filter: AuditFilter) =>
  infiniteQueryOptions({
    queryKey: ['audit', filter],
    queryFn: ({ pageParam, signal }) => {
      const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
      for (const [name, value] of Object.entries({ ...filter, cursor: pageParam }))
        if (value) query.set(name, value);
      return callApi(`/api/v1/audit?${String(query)}`, AuditPage, { signal });
    },
    initialPageParam: null as string | null,
    getNextPageParam: ({ next_cursor: cursor }) => cursor,
    staleTime: 0,
  });
