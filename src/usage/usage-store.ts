import { z } from 'zod';
import type { PageQuery } from '../http/page.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Owner } from '../lib/owner.ts';
import type { AnsweredRequest } from './record.ts';
import { RequestRow, type DayRange, type UsageGroup } from './schema.ts';

export type CostSource = 'provider' | 'prices' | 'unknown';

/** A request with its cost. */
export interface PricedRequest extends AnsweredRequest {
  costUsd: string | null;
  costSource: CostSource;
}

/** How often requests of an owner were refused with a code in a minute, in one process. */
export interface RefusalCount {
  /** Names this count in all writes of it. */
  id: string;
  owner: Owner;
  code: string;
  minute: Date;
  count: number;
}

export interface UsageStore {
  /** Stores requests of any owners. Those that are stored already are skipped. */
  writeRequests(requests: readonly PricedRequest[]): Promise<void>;
  /** Stores counts of any owners. A higher count replaces a lower one. */
  writeRefusals(refusals: readonly RefusalCount[]): Promise<void>;
  /** Totals of an owner's days, at most {@link MAX_GROUPS}. */
  listTotals(owner: Owner, group: UsageGroup, range: DayRange): Promise<TotalRow[]>;
  listRefusals(owner: Owner, range: DayRange): Promise<{ code: string; count: number }[]>;
  /** Requests of an owner, newest first, one more than the limit. */
  listRequests(owner: Owner, query: PageQuery, range: DayRange): Promise<RequestRow[]>;
  findRequest(owner: Owner, id: string): Promise<RequestRow | undefined>;
  /** Deletes requests and refusals that are older than `days`. */
  prune(days: number): Promise<void>;
}

const MAX_GROUPS = 1_000;
/** Rows that one statement deletes. */
const PRUNE_BATCH = 10_000;

/** What the totals are grouped by. Days come in their order, all others by the number of their requests. */
const GROUPS: Readonly<Record<UsageGroup, { value: string; order: string }>> = {
  day: { value: "to_char(day, 'YYYY-MM-DD')", order: '1 DESC' },
  provider: { value: 'provider', order: 'sum(requests) DESC, 1' },
  model: { value: "provider || '/' || model", order: 'sum(requests) DESC, 1' },
  key: { value: "nullif(key_id, '')", order: 'sum(requests) DESC, 1' },
  token: { value: "nullif(token_id, '')", order: 'sum(requests) DESC, 1' },
};

const TotalRow = z.object({
  group: z.string().nullable(),
  requests: z.number(),
  failed: z.number(),
  input_tokens: z.number(),
  cached_tokens: z.number(),
  output_tokens: z.number(),
  cost_usd: z.string().nullable(),
  unpriced: z.number(),
});
type TotalRow = z.output<typeof TotalRow>;

const RefusalRow = z.object({ code: z.string(), count: z.number() });
const PrunedRow = z.object({ deleted: z.number() });

/** Both days belong to the range. */
const IN_RANGE = `time >= $1::date::timestamp AT TIME ZONE 'UTC' AND time < ($2::date + 1)::timestamp AT TIME ZONE 'UTC'`;

const REQUEST_COLUMNS = `number::text, id, time, surface, provider, endpoint_slug, requested_model, model, served_model,
  key_scope, key_id, token_id, status, outcome, input_tokens::float8, cached_tokens::float8,
  cache_write_tokens::float8, output_tokens::float8, reasoning_tokens::float8, trim_scale(cost_usd)::text AS cost_usd,
  cost_source, latency_ms::float8, first_token_ms::float8, attempts`;

export function createUsageStore(database: Database): UsageStore {
  return {
    async writeRequests(requests) {
      await database.run('SELECT record_usage($1)', [JSON.stringify(requests.map(toStoredRequest))]);
    },
    async writeRefusals(refusals) {
      await database.run('SELECT record_usage_refusals($1)', [JSON.stringify(refusals)]);
    },
    listTotals: (owner, group, { from, to }) =>
      database.withOwner(owner, (sql) =>
        sql.rows(
          TotalRow,
          `SELECT ${GROUPS[group].value} AS "group", sum(requests)::float8 AS requests, sum(failed)::float8 AS failed,
             sum(input_tokens)::float8 AS input_tokens, sum(cached_tokens)::float8 AS cached_tokens,
             sum(output_tokens)::float8 AS output_tokens, sum(unpriced)::float8 AS unpriced,
             CASE WHEN sum(unpriced) < sum(requests) THEN trim_scale(sum(cost_usd))::text END AS cost_usd
           FROM usage_days WHERE owner = current_owner() AND day BETWEEN $1 AND $2
           GROUP BY 1 ORDER BY ${GROUPS[group].order} LIMIT $3`,
          [from, to, MAX_GROUPS],
        ),
      ),
    listRefusals: (owner, { from, to }) =>
      database.withOwner(owner, (sql) =>
        sql.rows(
          RefusalRow,
          `SELECT code, sum(count)::float8 AS count FROM usage_refusals
           WHERE owner = current_owner() AND ${IN_RANGE.replaceAll('time ', 'minute ')}
           GROUP BY 1 ORDER BY 2 DESC, 1`,
          [from, to],
        ),
      ),
    listRequests: (owner, { cursor, limit }, { from, to }) =>
      database.withOwner(owner, (sql) =>
        sql.rows(
          RequestRow,
          `SELECT ${REQUEST_COLUMNS} FROM usage_requests
           WHERE owner = current_owner() AND ${IN_RANGE} AND ($3::bigint IS NULL OR number < $3::bigint)
           ORDER BY usage_requests.number DESC LIMIT $4`,
          [from, to, cursor ?? null, limit + 1],
        ),
      ),
    async findRequest(owner, id) {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(
          RequestRow,
          `SELECT ${REQUEST_COLUMNS} FROM usage_requests WHERE owner = current_owner() AND id = $1`,
          [id],
        ),
      );
      return rows[0];
    },
    async prune(days) {
      for (let deleted = PRUNE_BATCH; deleted >= PRUNE_BATCH;) {
        const statement = 'SELECT prune_usage($1, $2)::float8 AS deleted';
        const [row] = await database.rows(PrunedRow, statement, [days, PRUNE_BATCH]);
        deleted = row?.deleted ?? 0;
      }
    },
  };
}

/** The columns of `record_usage`. */
function toStoredRequest(request: PricedRequest): Record<string, unknown> {
  const { usage, attempts } = request;
  const last = attempts.at(-1);
  if (last === undefined) throw new Error('a request of the ledger without a call to an upstream');
  return {
    id: request.requestId,
    owner: request.owner,
    time: request.startedAt,
    surface: request.surface,
    provider: last.provider,
    endpoint_slug: last.endpointSlug,
    requested_model: request.requestedModel,
    model: last.model,
    served_model: usage.servedModel,
    key_scope: last.keyScope,
    key_id: last.keyId,
    token_id: request.tokenId,
    status: last.status,
    outcome: request.end,
    input_tokens: usage.inputTokens,
    cached_tokens: usage.cachedTokens,
    cache_write_tokens: usage.cacheWriteTokens,
    output_tokens: usage.outputTokens,
    reasoning_tokens: usage.reasoningTokens,
    cost_usd: request.costUsd,
    cost_source: request.costSource,
    latency_ms: request.latencyMs,
    first_token_ms: request.firstTokenMs,
    attempts: attempts.map((attempt) => ({
      key_id: attempt.keyId,
      key_scope: attempt.keyScope,
      provider: attempt.provider,
      endpoint_slug: attempt.endpointSlug,
      model: attempt.model,
      status: attempt.status,
      fault: attempt.fault,
      started_at: attempt.startedAt,
      duration_ms: attempt.durationMs,
    })),
  };
}
