/** One locale for dates and numbers: the browser's. */
const locale = navigator.language;
const dateTime = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'short' });
const date = new Intl.DateTimeFormat(locale, { dateStyle: 'medium' });
const timeOfDay = new Intl.DateTimeFormat(locale, { timeStyle: 'short' });
const number = new Intl.NumberFormat(locale);
const money = new Intl.NumberFormat(locale, { style: 'currency', currency: 'USD', maximumFractionDigits: 4 });
// The texts are English, so relative times are too.
const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });

const UNITS = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
] as const;

/** @param text ISO 8601. */
export function formatDateTime(text: string): string {
  return dateTime.format(new Date(text));
}

/** @param text ISO 8601. @returns the time of the day. */
export function formatTime(text: string): string {
  return timeOfDay.format(new Date(text));
}

/** @param text ISO 8601. */
export function formatDate(text: string): string {
  return date.format(new Date(text));
}

export function formatNumber(value: number): string {
  return number.format(value);
}

/**
 * @param text ISO 8601.
 * @returns e.g. "3 minutes ago", "in 3 days", or "just now" within a minute.
 */
export function formatRelative(text: string, nowMs = Date.now()): string {
  const seconds = (Date.parse(text) - nowMs) / 1000;
  const unit = UNITS.find(([, size]) => Math.abs(seconds) >= size);
  return unit === undefined ? 'just now' : relative.format(Math.round(seconds / unit[1]), unit[0]);
}

/** @param ms milliseconds. @returns e.g. "340 ms", "2.4 s", "3 min 5 s". */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${String(Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  return `${String(Math.floor(ms / 60_000))} min ${String(Math.round((ms % 60_000) / 1_000))} s`;
}

/** @param usd decimal text, as the API gives money. @returns dollars; small sums with up to 4 digits after the point. */
export function formatMoney(usd: string): string {
  return money.format(Number(usd));
}
