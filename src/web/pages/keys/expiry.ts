/** @param expiresAt ISO 8601. @returns the local day as `<input type="date">` holds it; empty for none. */
export function toDay(expiresAt: string | null): string {
  if (expiresAt === null) return '';
  const date = new Date(expiresAt);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 10);
}

/** @param day as `<input type="date">` holds it. @returns the last second of that local day; null for none. */
export function endOfDay(day: string): string | null {
  return day === '' ? null : new Date(`${day}T23:59:59`).toISOString();
}
