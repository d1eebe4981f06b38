import type { Request, Response } from 'express';
import { AppError } from '../lib/errors.ts';
import { measureJson, type JsonLimits } from '../lib/json.ts';
import { hasBody } from './read-body.ts';

/**
 * Refuses a body that is not JSON in UTF-8, the only encoding of RFC 8259. In another encoding, a proxy in front and
 * this server could read two different texts.
 * @throws AppError `unsupported_media_type` (415). A request without a body passes.
 */
export function assertJsonType(request: Request): void {
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

/**
 * Parses a body of JSON in UTF-8 whose structure is within the limits. The limits are checked before parsing, since
 * parsing blocks all other requests.
 * @returns the value, and the number of members of all objects in the text.
 * @throws AppError `validation_failed` (400).
 */
export function parseBody(body: Buffer, limits: JsonLimits): { value: unknown; members: number } {
  const members = measureJson(body, limits);
  if (members === undefined) {
    const { objectMembers, elements } = limits;
    throw new AppError(
      'validation_failed',
      'The body is nested too deeply or has too many values. It may have ' +
        `${objectMembers} members in an object, ${limits.members} in all objects, and ${elements} elements in all arrays.`,
    );
  }
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(body);
    return { value: JSON.parse(text) as unknown, members };
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
