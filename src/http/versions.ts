import { AppError } from '../lib/errors.ts';

/** What is needed of a response; without the type of Express, so that pure files may compare versions. */
interface HeaderWriter {
  setHeader(name: string, value: string): unknown;
}

/** Sets `ETag`: the version of the only object in the response, as a strong tag. */
export function setETag(response: HeaderWriter, version: string | number): void {
  response.setHeader('etag', toTag(version));
}

/**
 * Compares the stored version with `If-Match`: RFC 9110, 13.1.1, with strong comparison, so that a weak tag never
 * matches. Call it where the version cannot change before the write: under the lock or in the transaction.
 * @param name of the object in the error, e.g. `server`.
 * @param ifMatch the header; without it every version matches.
 * @throws AppError `version_mismatch` (412) with the stored `version`, also as `ETag`.
 */
export function assertVersionMatches(
  name: string,
  version: string | number,
  ifMatch: string | undefined,
): void {
  if (ifMatch === undefined) return;
  const tags = ifMatch.split(',').map((tag) => tag.trim());
  if (tags.includes('*') || tags.includes(toTag(version))) return;
  throw new AppError(
    'version_mismatch',
    `The ${name} was changed in the meantime and has version ${version} now. Read it again before you change it.`,
    { extra: { version }, headers: { etag: toTag(version) } },
  );
}

/**
 * For requests that address no single object.
 * @throws AppError `validation_failed` (400) when `If-Match` is present: ignoring it would write over a change that the
 *   client wants to detect.
 */
export function assertNoIfMatch(ifMatch: string | undefined, detail: string): void {
  if (ifMatch !== undefined) throw new AppError('validation_failed', detail);
}

function toTag(version: string | number): string {
  return `"${version}"`;
}
