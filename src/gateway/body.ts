import express, { type Request, type Response } from 'express';
import { bodyError } from '../http/routes.ts';
import { AppError } from '../lib/errors.ts';

const readRaw = express.raw({ limit: '32mb', type: () => true, inflate: false });

/**
 * Reads the bytes of a request to `/v1`, at most 32 MB. Encoded bodies are refused: inflating them would let
 * a small request grow without a limit.
 * @param signal ends the wait for a client that sends its body slowly or never.
 * @throws AppError `unsupported_media_type` (415), `body_too_large` (413), `validation_failed` (400, no body);
 *   the signal's reason.
 */
export async function readChatBody(
  request: Request,
  response: Response,
  signal: AbortSignal,
): Promise<Buffer> {
  // A client may announce a body of no bytes: that is no body, whatever its type.
  if (request.get('content-length') !== '0' && request.is('application/json') === false) {
    throw new AppError('unsupported_media_type', 'Send the body as application/json.');
  }
  signal.throwIfAborted();
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener('abort', () => {
      reject(signal.reason as Error);
    });
    readRaw(request, response, (error?: unknown) => {
      if (error === undefined) resolve();
      else reject(bodyError(error));
    });
  });
  const body: unknown = request.body;
  if (!Buffer.isBuffer(body) || body.length === 0)
    throw new AppError('validation_failed', 'The request has no body.');
  return body;
}
