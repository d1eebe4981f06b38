import type { Request } from 'express';
import { rejectOnAbort } from '../lib/async/reject-on-abort.ts';
import { AppError, requestTimeout } from '../lib/errors.ts';
import type { BodyReservation, Upload } from './body-budget.ts';
import { watchUploadPace } from './upload-pace.ts';

export interface ReadBodyOptions {
  maxBytes: number;
  /** Counts the bytes as they arrive. */
  reservation: BodyReservation;
  /**
   * Checks the bytes as they arrive, so that a large body neither blocks other requests in one piece nor is read whole
   * before it is refused. An error that it returns ends the reading; of the rest, `limitUnreadBody` drops a part.
   */
  inspect?: (bytes: Buffer) => AppError | undefined;
  /** Ends the wait for the client. */
  signal?: AbortSignal;
}

/**
 * Reads the bytes of a body; an empty buffer when there is none. Encoded bodies are refused, since a small request
 * could inflate without limit. After an error of `inspect` the rest of the body is dropped as it
 * arrives; after any other error it is not read.
 * @throws AppError `body_too_large` (413), `unsupported_media_type` (415), `validation_failed` (400, the client gave
 *   up); `request_timeout` (408) for a body that arrives too slowly; what `reservation` throws, what `inspect` returns; the
 *   signal's reason.
 */
export async function readBody(request: Request, options: ReadBodyOptions): Promise<Buffer> {
  if ((request.get('content-encoding') ?? 'identity').toLowerCase() !== 'identity')
    throw new AppError('unsupported_media_type', 'Send the body without content encoding.');
  const declaredBytes = Number(request.get('content-length') ?? 0);
  if (declaredBytes > options.maxBytes) throw bodyTooLarge();
  if (!hasBody(request)) return Buffer.alloc(0);
  options.signal?.throwIfAborted();
  const body = Promise.withResolvers<Buffer>();
  using pace = watchUploadPace(() => {
    body.reject(requestTimeout('The body arrived too slowly. Check the connection and send it again.'));
  });
  using upload = options.reservation.beginUpload(declaredBytes, pace, body.reject);
  const collection = collectBody(request, options, upload, body);
  try {
    return await (options.signal === undefined ? body.promise : rejectOnAbort(body.promise, options.signal));
  } catch (error) {
    if (!collection.isRefused()) request.pause();
    throw error;
  } finally {
    collection.stop();
  }
}

/** True when a request declares a body that is not empty. */
export function hasBody({ headers }: Pick<Request, 'headers'>): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** Settles `body` when the request has ended. */
function collectBody(
  request: Request,
  { maxBytes, inspect }: ReadBodyOptions,
  upload: Upload,
  body: PromiseWithResolvers<Buffer>,
) {
  const chunks: Buffer[] = [];
  let length = 0;
  let isRefused = false;
  const onData = (chunk: Buffer) => {
    if (isRefused) return;
    try {
      length += chunk.length;
      if (length > maxBytes) throw bodyTooLarge();
      upload.received(chunk.length);
      const refusal = inspect?.(chunk);
      isRefused = refusal !== undefined;
      if (refusal !== undefined) throw refusal;
      chunks.push(chunk);
    } catch (error) {
      body.reject(error);
    }
  };
  const onEnd = () => {
    body.resolve(Buffer.concat(chunks));
  };
  const onFailure = () => {
    body.reject(new AppError('validation_failed', 'The body could not be read.'));
  };
  request.on('data', onData).on('end', onEnd).on('error', onFailure).on('close', onFailure);
  if (request.destroyed) onFailure();
  return {
    /** True when `inspect` has refused the body. */
    isRefused: () => isRefused,
    /** Ends the reading and drops what was read. */
    stop() {
      request.off('data', onData).off('end', onEnd).off('error', onFailure).off('close', onFailure);
    },
  };
}

function bodyTooLarge(): AppError {
  return new AppError('body_too_large', 'The body exceeds the size limit of this route.');
}
