import { z } from 'zod';
import { DayRangeQuery, pageOf, PageQuery } from '../http/page.ts';

/** Days in UTC; both belong to the range. */
export interface DayRange {
  from: string;
  to: string;
}

const GROUP_NAMES = ['day', 'provider', 'model', 'key', 'token'] as const;
export type UsageGroup = (typeof GROUP_NAMES)[number];

export const UsageQuery = z.strictObject({
  ...DayRangeQuery.shape,
  group: z.enum(GROUP_NAMES, `must be one of ${GROUP_NAMES.join(', ')}`).default('day'),
});
export const RequestsQuery = z.strictObject({ ...DayRangeQuery.shape, ...PageQuery.shape });
export type RequestsQuery = z.output<typeof RequestsQuery>;
export const RequestParams = z.object({ id: z.string().max(64) });

export const UsageTotals = z.object({
  data: z.array(
    z.object({
      /** Null for requests without a key or token of their own. */
      group: z.string().nullable(),
      requests: z.number(),
      input_tokens: z.number(),
      cached_tokens: z.number(),
      output_tokens: z.number(),
      cost_usd: z.string().nullable(),
      /** Requests whose cost is not known: `cost_usd` does not contain them. */
      unpriced: z.number(),
      failed: z.number(),
    }),
  ),
  /** Requests that were refused before an upstream was called. */
  refused: z.array(z.object({ code: z.string(), count: z.number() })),
});
export type UsageTotals = z.output<typeof UsageTotals>;

const count = z.number().nullable();

/** The members of a request that rows and views share. */
const requestMembers = {
  id: z.string(),
  surface: z.string(),
  provider: z.string(),
  endpoint_slug: z.string().nullable(),
  requested_model: z.string().nullable(),
  model: z.string(),
  served_model: z.string().nullable(),
  key_scope: z.string(),
  key_id: z.string().nullable(),
  token_id: z.string().nullable(),
  status: count,
  input_tokens: count,
  cached_tokens: count,
  cache_write_tokens: count,
  output_tokens: count,
  reasoning_tokens: count,
  cost_usd: z.string().nullable(),
  cost_source: z.enum(['provider', 'prices', 'unknown']),
  latency_ms: z.number(),
  first_token_ms: count,
};

const attemptMembers = {
  key_id: z.string().nullable(),
  key_scope: z.string(),
  provider: z.string(),
  endpoint_slug: z.string().nullable(),
  model: z.string(),
  status: count,
  fault: z.string().nullable(),
  started_at: z.string(),
  duration_ms: z.number(),
};

/** A row of the table. */
export const RequestRow = z.object({
  ...requestMembers,
  number: z.string(),
  time: z.date(),
  outcome: z.string(),
  attempts: z.array(z.object(attemptMembers)),
});
export type RequestRow = z.output<typeof RequestRow>;

export const RequestView = z.object({
  ...requestMembers,
  time: z.iso.datetime(),
  end: z.string(),
  /** Calls to upstreams. */
  attempt_count: z.number(),
});
export type RequestView = z.output<typeof RequestView>;
export const RequestPage = pageOf(RequestView);
export type RequestPage = z.output<typeof RequestPage>;

export const UsageReceipt = RequestView.extend({
  attempts: z.array(z.object({ ...attemptMembers, cost_usd: z.string().nullable() })),
});
export type UsageReceipt = z.output<typeof UsageReceipt>;
