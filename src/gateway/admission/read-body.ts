import express, { type Request, type Response } from 'express';
import { toBodyError } from '../../http/route.ts';
import { AppError } from '../../lib/errors.ts';
import type { BodyReservation } from './body-limits.ts';

const MAX_BODY_BYTES = 32 * 1024 * 1024;
const readRaw = express.raw({ limit: MAX_BODY_BYTES, type: () => true, inflate: false });

/**
 * Reads the bytes of a request to `/v1`, at most 32 MB. Encoded bodies are refused: inflating them would let
 * a small request grow without a limit.
 * @param reservation counts the bytes as they come.
 * @param signal ends the wait for a client that sends its body slowly or never.
 * @throws AppError `unsupported_media_type` (415), `body_too_large` (413), `validation_failed` (400, no body);
 *   what `share` refuses with; the signal's reason.
 */
export async function readRequestBody(
  request: Request,
  response: Response,
  reservation: BodyReservation,
  signal: AbortSignal,
): Promise<Buffer> {
  // A client may announce a body of no bytes: that is no body, whatever its type.
  if (request.get('content-length') !== '0' && request.is('application/json') === false) {
    throw new AppError('unsupported_media_type', 'Send the body as application/json.');
  }
  const declaredBytes = Number(request.get('content-length') ?? 0);
  // The reader would first wait for all of it, to throw it away.
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
  // The request lives as long as its answer, and must not hold the body for so long.
  request.body = undefined;
  if (!Buffer.isBuffer(body) || body.length === 0)
    throw new AppError('validation_failed', 'The request has no body.');
  return body;
}

/** Once there is no room nothing more is read: what is left is dropped unread when the error has gone out. */
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
