import { assertRange, toPage, type PageQuery } from '../http/page.ts';
import type { User } from '../http/principal.ts';
import { notFound } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type {
  DayRange,
  RequestPage,
  RequestRow,
  RequestView,
  UsageGroup,
  UsageReceipt,
  UsageTotals,
} from './schema.ts';
import type { UsageStore } from './usage-store.ts';

/** A range as it is asked for: today and the 29 days before by default. */
export type RequestedRange = { [Name in keyof DayRange]?: string | undefined };

/** Reads a user's own ledger. */
export interface UserUsage {
  /** @throws AppError `validation_failed` when the range ends before it begins. */
  listTotals(user: User, group: UsageGroup, range: RequestedRange): Promise<UsageTotals>;
  /** @throws AppError as {@link listTotals}. */
  listRequests(user: User, page: PageQuery, range: RequestedRange): Promise<RequestPage>;
  /** @throws AppError `not_found` (404), also for another user's request. */
  getReceipt(user: User, id: string): Promise<UsageReceipt>;
}

const DAY_MS = 86_400_000;
const DEFAULT_DAYS = 30;

export function createUserUsage(store: UsageStore, now: () => Date = () => new Date()): UserUsage {
  return {
    async listTotals(user, group, requested) {
      const [owner, range] = [userOwner(user.id), toRange(requested, now())];
      const [data, refused] = [
        await store.listTotals(owner, group, range),
        await store.listRefusals(owner, range),
      ];
      return { data, refused };
    },
    async listRequests(user, page, requested) {
      const rows = await store.listRequests(userOwner(user.id), page, toRange(requested, now()));
      return toPage(rows, page.limit, ({ number }) => number, toView);
    },
    async getReceipt(user, id) {
      const row = await store.findRequest(userOwner(user.id), id);
      if (row === undefined) throw notFound('This request');
      return toReceipt(row);
    },
  };
}

function toRange({ from, to }: RequestedRange, now: Date): DayRange {
  const last = to ?? toDay(now.getTime());
  const first = from ?? toDay(Date.parse(last) - (DEFAULT_DAYS - 1) * DAY_MS);
  const range = { from: first, to: last };
  assertRange(range);
  return range;
}

function toDay(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}

function toView({ number: _number, time, outcome, attempts, ...members }: RequestRow): RequestView {
  return { ...members, time: time.toISOString(), end: outcome, attempt_count: attempts.length };
}

/** The answer's cost belongs to the last call. What the others cost, if anything, no provider says. */
function toReceipt(row: RequestRow): UsageReceipt {
  const { attempts, cost_usd: cost } = row;
  return {
    ...toView(row),
    attempts: attempts.map((attempt, index) => ({
      ...attempt,
      cost_usd: index === attempts.length - 1 ? cost : null,
    })),
  };
}
