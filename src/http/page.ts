import { z } from 'zod';
import { AppError } from '../lib/errors.ts';

const MAX_ITEMS = 200;
const LIMIT_ERROR = `must be a whole number from 1 to ${MAX_ITEMS}`;

/** Query of a list that is read in pages, newest first. `cursor` is the `next_cursor` of an earlier page. */
export const PageQuery = z.strictObject({
  cursor: z
    .string()
    .regex(/^[1-9]\d{0,17}$/, 'must be the next_cursor of an earlier page')
    .optional(),
  limit: z.coerce
    .number({ error: LIMIT_ERROR })
    .int(LIMIT_ERROR)
    .min(1, LIMIT_ERROR)
    .max(MAX_ITEMS, LIMIT_ERROR)
    .default(50),
});
export type PageQuery = z.output<typeof PageQuery>;

const Day = z.iso.date('must be a day such as 2026-05-01');

/** Query of a list that is limited to days in UTC; both belong to the range. */
export const DayRangeQuery = z.object({ from: Day.optional(), to: Day.optional() });

/** @throws AppError `validation_failed` (400) when the range ends before it begins. */
export function assertRange({ from, to }: z.output<typeof DayRangeQuery>): void {
  if (from === undefined || to === undefined || from <= to) return;
  throw new AppError('validation_failed', 'The range ends before it begins.', {
    errors: [{ path: 'from', message: 'must not be after "to"' }],
  });
}

/** Response schema of such a list. `next_cursor` is null on the last page. */
export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({ data: z.array(item), next_cursor: z.string().nullable() });
}

/** @param rows up to `limit + 1`: the extra one shows whether there is a next page. */
export function toPage<Row, Item>(
  rows: readonly Row[],
  limit: number,
  toCursor: (row: Row) => string,
  toItem: (row: Row) => Item,
): { data: Item[]; next_cursor: string | null } {
  const shown = rows.slice(0, limit);
  const last = rows.length > limit ? shown.at(-1) : undefined;
  return { data: shown.map(toItem), next_cursor: last === undefined ? null : toCursor(last) };
}
