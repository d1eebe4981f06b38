import type { Response } from 'express';
import { rateLimited } from '../lib/errors.ts';
import { whenClosed } from './when-closed.ts';

export interface OpenRequests {
  /**
   * Takes a place for one request, which comes back when its answer is over.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  enter(userId: string, response: Response): void;
}

/**
 * Limits how many requests of one user are open at once in this process: each holds its body and a connection.
 * @param most what nobody's own work needs more of.
 */
export function createOpenRequests(most: number): OpenRequests {
  const open = new Map<string, number>();

  function leave(userId: string): void {
    const left = (open.get(userId) ?? 1) - 1;
    if (left === 0) open.delete(userId);
    else open.set(userId, left);
  }

  return {
    enter(userId, response) {
      const now = open.get(userId) ?? 0;
      if (now >= most) throw rateLimited(`At most ${most} of your requests may be open at once.`, 1);
      open.set(userId, now + 1);
      whenClosed(response, () => {
        leave(userId);
      });
    },
  };
}
