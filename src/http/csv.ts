import type { Request, Response } from 'express';
import type { BodyReservation } from './body-budget.ts';

/** True when the client prefers CSV to JSON. */
export function acceptsCsv(request: Request): boolean {
  return request.accepts(['application/json', 'text/csv']) === 'text/csv';
}

type Cell = string | number | null;

/**
 * A table as CSV (RFC 4180), the names of its columns first. A text that a spreadsheet would run as a formula begins with
 * an apostrophe (https://owasp.org/www-community/attacks/CSV_Injection).
 */
export function toCsv<Row extends Readonly<Record<string, unknown>>>(
  columns: readonly (keyof Row & string)[],
  rows: readonly Row[],
): string {
  const lines = rows.map((row) => columns.map((name) => toCell(row[name] as Cell)));
  return [columns.map(toCell), ...lines].map((cells) => `${cells.join(',')}\r\n`).join('');
}

const FORMULA = /^[\s\p{Cc}]*[=+\-@|%＝＋－＠]|^[\t\r\n]/u;

function toCell(value: Cell): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return `"${text.replaceAll('"', '""')}"`;
}

/**
 * Sends CSV as the whole response. Its text counts for the memory of the user until the response is closed.
 * @throws what `BodyReservation.add` throws.
 */
export function endWithCsv(
  response: Response,
  csv: string,
  reservation: Pick<BodyReservation, 'add' | 'keepOnly'>,
): void {
  const bytes = Buffer.byteLength(csv);
  reservation.add(bytes);
  reservation.keepOnly(bytes);
  response.setTimeout(IDLE_TIMEOUT_MS, () => response.destroy());
  response.setHeader('content-type', 'text/csv; charset=utf-8');
  response.setHeader('content-disposition', 'attachment; filename="usage.csv"');
  response.end(csv);
}

/** The connection is closed when the client reads nothing for this long. */
const IDLE_TIMEOUT_MS = 60_000;
