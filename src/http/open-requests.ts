import type { Response } from 'express';
import { whenClosed } from '../http/when-closed.ts';
import { AppError } from '../lib/errors.ts';

export interface OpenRequests {
  /**
   * Takes a place for one request, which comes back when its answer is over.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  enter(userId: string, response: Response): void;
}

/** Nobody's own work needs more at once, and each open request holds its body and a connection. */
const MOST_OPEN = 16;

/** Limits the open requests to `/v1` per user and process, whoever pays. */
export function createOpenRequests(): OpenRequests {
  const open = new Map<string, number>();

  function leave(userId: string): void {
    const left = (open.get(userId) ?? 1) - 1;
    if (left === 0) open.delete(userId);
    else open.set(userId, left);
  }

  return {
    enter(userId, response) {
      const now = open.get(userId) ?? 0;
      if (now >= MOST_OPEN) {
        throw new AppError('rate_limited', `At most ${MOST_OPEN} of your requests may be open at once.`, {
          headers: { 'retry-after': '1' },
        });
      }
      open.set(userId, now + 1);
      whenClosed(response, () => {
        leave(userId);
      });
    },
  };
}
