import express, { type Request, type Response } from 'express';
import { toBodyError } from '../../http/route.ts';
import { AppError } from '../../lib/errors.ts';
import type { BodyReservation } from './body-limits.ts';

const MAX_BODY_BYTES = 32 * 1024 * 1024;
const readRaw = express.raw({ limit: MAX_BODY_BYTES, type: () => true, inflate: false });

/**
 * Reads the body of a request to `/v1`, at most 32 MB. Encoded bodies are refused, since a small request could
 * inflate without limit.
 * @param reservation counts the bytes as they arrive.
 * @param signal aborts the wait for a client that sends its body slowly or never.
 * @throws AppError `unsupported_media_type` (415), `body_too_large` (413), `validation_failed` (400, no body);
 *   what `reservation` throws; the signal's reason.
 */
export async function readRequestBody(
  request: Request,
  response: Response,
  reservation: BodyReservation,
  signal: AbortSignal,
): Promise<Buffer> {
  // `Content-Length: 0` means no body, so its type does not count.
  if (request.get('content-length') !== '0' && request.is('application/json') === false) {
    throw new AppError('unsupported_media_type', 'Send the body as application/json.');
  }
  const declaredBytes = Number(request.get('content-length') ?? 0);
  // The body parser would first read and discard all of it.
  if (declaredBytes > MAX_BODY_BYTES) throw toBodyError({ type: 'entity.too.large' });
  reservation.assertFits(declaredBytes);
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener('abort', () => {
      reject(signal.reason as Error);
    });
    readRaw(request, response, (error?: unknown) => {
      if (error === undefined) resolve();
      else reject(toBodyError(error));
    });
    countBytes(request, reservation, reject);
  });
  const body: unknown = request.body;
  // The request object outlives the upload and must not retain the body.
  request.body = undefined;
  if (!Buffer.isBuffer(body) || body.length === 0)
    throw new AppError('validation_failed', 'The request has no body. Send a JSON object.');
  return body;
}

/** Stops reading when a limit is exceeded. The rest is dropped unread after the error was sent. */
function countBytes(request: Request, reservation: BodyReservation, reject: (error: Error) => void): void {
  const onData = (chunk: Buffer) => {
    try {
      reservation.add(chunk.length);
    } catch (error) {
      request.off('data', onData).pause();
      reject(error as Error);
    }
  };
  request.on('data', onData);
}
