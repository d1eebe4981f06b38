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
   * before it is refused. An error that it returns ends the reading. The rest is dropped as it arrives, up to
   * `maxBytes`, because many clients read a response only after they have sent the whole body.
   */
  inspect?: (bytes: Buffer) => AppError | undefined;
  /** Ends the wait for the client. */
  signal?: AbortSignal;
}

/**
 * Reads the bytes of a body; an empty buffer when there is none. Encoded bodies are refused, since a small request
 * could inflate without limit. After an error of `inspect` the rest of the body is dropped as it arrives; after any other
 * error it is not read.
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
    if (collection.isRefused()) dropRest(request, options.maxBytes);
    else request.pause();
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
  const bytes = createByteCollector();
  let isRefused = false;
  const onData = (chunk: Buffer) => {
    if (isRefused) return;
    try {
      if (bytes.length() + chunk.length > maxBytes) throw bodyTooLarge();
      upload.received(chunk.length);
      const refusal = inspect?.(chunk);
      isRefused = refusal !== undefined;
      if (refusal !== undefined) throw refusal;
      bytes.add(chunk);
      if (bytes.isFragmented()) throw bodyTooFragmented();
    } catch (error) {
      body.reject(error);
    }
  };
  const onEnd = () => {
    // 'close' follows at once, and an error with its stack for each request is expensive.
    request.off('close', onFailure);
    body.resolve(bytes.concat());
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

/**
 * Drops the rest of a refused body up to a limit, and reads no more then. The response does not end the reading: it can
 * wait behind another one of the same connection.
 */
function dropRest(request: Request, maxBytes: number): void {
  let droppedBytes = 0;
  request.on('data', (chunk: Buffer) => {
    droppedBytes += Math.max(chunk.length, MIN_AVERAGE_BYTES);
    if (droppedBytes > maxBytes) request.pause();
  });
}

function bodyTooLarge(): AppError {
  return new AppError('body_too_large', 'The body exceeds the size limit of this route.');
}

/** Smaller chunks are copied into blocks of this size. */
const BLOCK_BYTES = 4_096;
/** Each chunk costs microseconds, so more of them may not be smaller than this on average. */
const MAX_SMALL_CHUNKS = 4_000;
const MIN_AVERAGE_BYTES = 64;

/**
 * Collects the chunks of a body. Node gives each chunk of the transfer encoding a buffer of its own, which takes some
 * hundred bytes of memory: a body of chunks of one byte would take more than a hundred times its size.
 */
function createByteCollector() {
  const parts: Buffer[] = [];
  let block = Buffer.alloc(0);
  let usedBytes = 0;
  let length = 0;
  let chunkCount = 0;
  function endBlock(): void {
    if (usedBytes > 0) parts.push(block.subarray(0, usedBytes));
    block = Buffer.alloc(0);
    usedBytes = 0;
  }
  return {
    length: () => length,
    isFragmented: () => chunkCount > MAX_SMALL_CHUNKS && length < chunkCount * MIN_AVERAGE_BYTES,
    add(chunk: Buffer): void {
      length += chunk.length;
      chunkCount += 1;
      if (usedBytes + chunk.length > block.length) endBlock();
      if (chunk.length >= BLOCK_BYTES) {
        parts.push(chunk);
        return;
      }
      if (usedBytes === 0) block = Buffer.allocUnsafeSlow(BLOCK_BYTES);
      usedBytes += chunk.copy(block, usedBytes);
    },
    concat(): Buffer {
      endBlock();
      return Buffer.concat(parts, length);
    },
  };
}

function bodyTooFragmented(): AppError {
  return new AppError(
    'validation_failed',
    'The body arrives in too many small chunks. Send it in chunks of at least a kilobyte.',
  );
}
