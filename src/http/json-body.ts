import type { Request, Response } from 'express';
import { waitForLargeWork } from '../lib/async/large-work.ts';
import { AppError } from '../lib/errors.ts';
import { createJsonMeter, type JsonLimits } from '../lib/json.ts';
import type { BodyReservation } from './body-budget.ts';
import { hasBody, readBody, type ReadBodyOptions } from './read-body.ts';

/**
 * Refuses a body that is not JSON in UTF-8, the only encoding of RFC 8259. In another encoding, a proxy in front and
 * this server could read two different texts.
 * @throws AppError `unsupported_media_type` (415). A request without a body passes.
 */
function assertJsonType(request: Request): void {
  if (!hasBody(request)) return;
  if (!request.is('application/json'))
    throw new AppError('unsupported_media_type', 'Send the body as application/json.');
  if (!listCharsets(request.get('content-type') ?? '').every((charset) => /^utf-?8$/i.test(charset)))
    throw new AppError('unsupported_media_type', 'Send the body as UTF-8, without another charset.');
}

/** The values of all `charset` parameters, quotes removed. Of several, parsers read different ones. */
function listCharsets(contentType: string): string[] {
  return contentType
    .split(';')
    .slice(1)
    .map((parameter) => parameter.split('=').map((part) => part.trim()))
    .filter(([name]) => name?.toLowerCase() === 'charset')
    .map(([, ...value]) => value.join('=').replaceAll('"', ''));
}

/** A body of JSON that was received and not yet parsed. */
export interface JsonBody {
  /** Empty when the request has no body. */
  bytes: Buffer;
  /** The number of members of all objects in the text, of which a parser hides those with the name of a later one. */
  memberCount: number;
}

export interface ReadJsonBodyOptions extends Omit<ReadBodyOptions, 'inspect'> {
  limits: JsonLimits;
}

/**
 * Reads a body of JSON in UTF-8 whose structure is within the limits. It is measured as it arrives, and refused at the
 * first value beyond a limit: to parse it, or to measure it whole, would block all other requests.
 * @throws what `assertJsonType` and `readBody` throw; AppError `validation_failed` (400).
 */
export async function readJsonBody(
  request: Request,
  { limits, ...options }: ReadJsonBodyOptions,
): Promise<JsonBody> {
  assertJsonType(request);
  const meter = createJsonMeter(limits);
  const inspect = (bytes: Buffer) => (meter.add(bytes) ? undefined : tooMuchStructure(limits));
  const bytes = await readBody(request, { ...options, inspect });
  // The caller parses it.
  await waitForLargeWork(options.reservation.userId, bytes.length, options.signal);
  return { bytes, memberCount: meter.members() };
}

function tooMuchStructure({ objectMembers, members, elements }: JsonLimits): AppError {
  return new AppError(
    'validation_failed',
    'The body is nested too deeply or has too many values. It may have ' +
      `${objectMembers} members in an object, ${members} in all objects, and ${elements} elements in all arrays.`,
  );
}

/** @throws AppError `validation_failed` (400) when the bytes are not JSON in UTF-8. */
export function parseJsonBody({ bytes }: JsonBody): unknown {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return JSON.parse(text) as unknown;
  } catch {
    // The parser's message quotes the body, so it is dropped.
    throw new AppError('validation_failed', 'The body is not valid JSON in UTF-8.');
  }
}

/**
 * Sends a JSON text as the whole response.
 * @param idleTimeoutMs the connection is closed when the client reads nothing for this long, since otherwise a client that
 *   does not read would keep the text in memory forever.
 */
export function endWithJson(response: Response, json: string | Buffer, idleTimeoutMs: number): void {
  response.setTimeout(idleTimeoutMs, () => response.destroy());
  response.setHeader('content-type', 'application/json');
  response.end(json);
}

const IDLE_TIMEOUT_MS = 60_000;

/**
 * Sends a value as the whole response. Its text counts for the memory of the user until the response is closed.
 * @throws what `BodyReservation.add` throws.
 */
export function endWithCountedJson(
  response: Response,
  value: unknown,
  reservation: Pick<BodyReservation, 'add' | 'keepOnly'>,
  idleTimeoutMs = IDLE_TIMEOUT_MS,
): void {
  const json = JSON.stringify(value);
  const bytes = Buffer.byteLength(json);
  reservation.add(bytes);
  reservation.keepOnly(bytes);
  endWithJson(response, json, idleTimeoutMs);
}
