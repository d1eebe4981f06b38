import type { Request, Response } from 'express';
import { assertJsonType, readBody, toBodyError } from '../../http/json-body.ts';
import { onResponseClosed } from '../../http/on-response-closed.ts';
import { rejectOnAbort } from '../../lib/async/reject-on-abort.ts';
import { AppError } from '../../lib/errors.ts';

/** Memory held for the bodies of one request and of its response. Released when the response is closed. */
export interface BodyReservation {
  /**
   * Checks that a body of this size fits now. Reserves nothing, so that a client which declares a large body and
   * sends nothing does not block others.
   * @throws what `add` throws.
   */
  assertFits(bytes: number): void;
  /**
   * Counts body bytes as they arrive.
   * @throws AppError `busy` (503) when the limit of the process is reached, `rate_limited` (429) when the limit of
   *   the user is reached; both with `Retry-After` in seconds.
   */
  add(bytes: number): void;
  /** Sets the reservation to these bytes once the body was read and parsed. */
  keepOnly(bytes: number): void;
}

export interface BodyLimits {
  createReservation(userId: string, response: Response): BodyReservation;
}

const MAX_BODY_BYTES = 32 * 1024 * 1024;

/** Memory for all bodies of requests and responses in this process. */
const MAX_TOTAL_BYTES = 512 * 1024 * 1024;
/** One user cannot block all others, and the largest body still fits while it is read. */
const MAX_BYTES_PER_USER = MAX_TOTAL_BYTES / 3;
/**
 * Memory per body byte until the body is parsed: chunks, buffer, text, parsed value and garbage not yet collected.
 * Measured as resident memory with 6 to 12 concurrent bodies of 32 MB: 3.0 to 4.5 bytes, depending on the content.
 * After parsing only the bytes themselves count.
 */
const MEMORY_PER_UNPARSED_BYTE = 4;

const RETRY_AFTER_HEADERS = { 'retry-after': '1' };

/** Limits the memory of bodies, for any number of clients, any upload speed and clients that do not read. */
export function createBodyLimits(): BodyLimits {
  const byUser = new Map<string, number>();
  let total = 0;

  function addToTotals(userId: string, bytes: number): void {
    total += bytes;
    const userTotal = (byUser.get(userId) ?? 0) + bytes;
    if (userTotal === 0) byUser.delete(userId);
    else byUser.set(userId, userTotal);
  }

  function assertFits(userId: string, bytes: number): void {
    if ((byUser.get(userId) ?? 0) + bytes > MAX_BYTES_PER_USER) {
      const detail = 'Your open requests together reach the size limit. Wait until one of them has finished.';
      throw new AppError('rate_limited', detail, { headers: RETRY_AFTER_HEADERS });
    }
    if (total + bytes > MAX_TOTAL_BYTES) {
      const detail = 'This server has no memory for a body of this size right now. Try again shortly.';
      throw new AppError('busy', detail, { headers: RETRY_AFTER_HEADERS });
    }
  }

  return {
    createReservation(userId, response) {
      let reservedBytes = 0;
      let isClosed = false;
      const setReserved = (bytes: number) => {
        addToTotals(userId, bytes - reservedBytes);
        reservedBytes = bytes;
      };
      onResponseClosed(response, () => {
        isClosed = true;
        setReserved(0);
      });
      return {
        assertFits: (bytes) => {
          assertFits(userId, bytes * MEMORY_PER_UNPARSED_BYTE);
        },
        add(bytes) {
          if (isClosed) return;
          assertFits(userId, bytes * MEMORY_PER_UNPARSED_BYTE);
          setReserved(reservedBytes + bytes * MEMORY_PER_UNPARSED_BYTE);
        },
        keepOnly(bytes) {
          if (!isClosed) setReserved(bytes);
        },
      };
    },
  };
}

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
  assertJsonType(request);
  const declaredBytes = Number(request.get('content-length') ?? 0);
  // The body parser would first read and discard all of it.
  if (declaredBytes > MAX_BODY_BYTES) throw toBodyError({ type: 'entity.too.large' });
  reservation.assertFits(declaredBytes);
  signal.throwIfAborted();
  const reading = new Promise<Buffer>((resolve, reject) => {
    readBody(request, response, MAX_BODY_BYTES).then(resolve, reject);
    countBytes(request, reservation, reject);
  });
  const body = await rejectOnAbort(reading, signal);
  if (body.length === 0)
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
