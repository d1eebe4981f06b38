import type { Response } from 'express';
import { onResponseClosed } from '../../http/on-response-closed.ts';
import { AppError } from '../../lib/errors.ts';

/** What one request's body takes of the budget; given back when the answer is over. */
export interface BodyReservation {
  /**
   * Refuses a body for which there is no room now. Takes none: who announces much and sends nothing must not
   * keep others out.
   * @throws what `add` throws.
   */
  assertFits(bytes: number): void;
  /**
   * Counts bytes of a body as they come.
   * @throws AppError `busy` (503) when the process has no room, `rate_limited` (429) when this user holds as
   *   much as one user may; both with `Retry-After` in seconds.
   */
  add(bytes: number): void;
  /** Reading is over: from here on nothing but these bytes is kept. */
  keepOnly(bytes: number): void;
}

export interface BodyLimits {
  createReservation(userId: string, response: Response): BodyReservation;
}

/** Bytes that all bodies together may take in this process. */
const MAX_TOTAL_BYTES = 512 * 1024 * 1024;
/** So that nobody can keep all others out; the largest body has room while it is read. */
const MAX_BYTES_PER_USER = MAX_TOTAL_BYTES / 3;
/**
 * What a byte of a body takes until it has been read and parsed: its pieces, the whole, the text, the parsed
 * value, and what of all that is not collected yet. Measured with bodies of 32 MB, 6 to 12 at once, as resident
 * memory: 3.0 to 4.5 bytes, by their content. From then on it is the bytes alone.
 */
const MEMORY_PER_UNPARSED_BYTE = 4;

const RETRY_AFTER_HEADERS = { 'retry-after': '1' };

/** Keeps the memory that request bodies take within bounds, however many clients send however slowly. */
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
      const detail = 'Your open requests are as large together as they may be.';
      throw new AppError('rate_limited', detail, { headers: RETRY_AFTER_HEADERS });
    }
    if (total + bytes > MAX_TOTAL_BYTES) {
      const detail = 'This server has no room for a body of this size right now. Try again shortly.';
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
