import type { Response } from 'express';
import { whenClosed } from '../http/when-closed.ts';
import { AppError } from '../lib/errors.ts';

/** What one request's body takes of the budget; given back when the answer is over. */
export interface BodyShare {
  /**
   * Refuses a body for which there is no room now. Takes none: who announces much and sends nothing must not
   * keep others out.
   * @throws what `add` throws.
   */
  expect(bytes: number): void;
  /**
   * Counts bytes of a body as they come.
   * @throws AppError `busy` (503) when the process has no room, `rate_limited` (429) when this user holds as
   *   much as one user may; both with `Retry-After` in seconds.
   */
  add(bytes: number): void;
  /** Reading is over: from here on nothing but these bytes is kept. */
  keep(bytes: number): void;
}

export interface BodyBudget {
  open(userId: string, response: Response): BodyShare;
}

/** Bytes that all bodies together may take in this process. */
const TOTAL_BYTES = 512 * 1024 * 1024;
/** So that nobody can keep all others out; the largest body has room while it is read. */
const ONE_USERS_BYTES = TOTAL_BYTES / 3;
/**
 * What a byte of a body takes until it has been read and parsed: its pieces, the whole, the text, the parsed
 * value, and what of all that is not collected yet. Measured with bodies of 32 MB, 6 to 12 at once, as resident
 * memory: 3.0 to 4.5 bytes, by their content. From then on it is the bytes alone.
 */
const WHILE_READ = 4;

const RETRY_SOON = { 'retry-after': '1' };

/** Keeps the memory that request bodies take within bounds, however many clients send however slowly. */
export function createBodyBudget(): BodyBudget {
  const byUser = new Map<string, number>();
  let total = 0;

  function take(userId: string, bytes: number): void {
    total += bytes;
    const own = (byUser.get(userId) ?? 0) + bytes;
    if (own === 0) byUser.delete(userId);
    else byUser.set(userId, own);
  }

  function refuseWithoutRoom(userId: string, bytes: number): void {
    if ((byUser.get(userId) ?? 0) + bytes > ONE_USERS_BYTES) {
      const detail = 'Your open requests are as large together as they may be.';
      throw new AppError('rate_limited', detail, { headers: RETRY_SOON });
    }
    if (total + bytes > TOTAL_BYTES) {
      const detail = 'This server has no room for a body of this size right now. Try again shortly.';
      throw new AppError('busy', detail, { headers: RETRY_SOON });
    }
  }

  return {
    open(userId, response) {
      let taken = 0;
      let isOver = false;
      const set = (bytes: number) => {
        take(userId, bytes - taken);
        taken = bytes;
      };
      whenClosed(response, () => {
        isOver = true;
        set(0);
      });
      return {
        expect: (bytes) => {
          refuseWithoutRoom(userId, bytes * WHILE_READ);
        },
        add(bytes) {
          if (isOver) return;
          refuseWithoutRoom(userId, bytes * WHILE_READ);
          set(taken + bytes * WHILE_READ);
        },
        keep(bytes) {
          if (!isOver) set(bytes);
        },
      };
    },
  };
}
