import type { Response } from 'express';
import { rateLimited } from '../lib/errors.ts';
import { onResponseClosed } from './on-response-closed.ts';

export interface OpenRequestLimit {
  /**
   * Takes a place for one request, which comes back when its answer is over.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): void;
}

/**
 * Limits how many requests of one user are open at once in this process: each holds its body and a connection.
 * @param maxOpen what nobody's own work needs more of.
 */
export function createOpenRequestLimit(maxOpen: number): OpenRequestLimit {
  const openByUser = new Map<string, number>();

  function release(userId: string): void {
    const remaining = (openByUser.get(userId) ?? 1) - 1;
    if (remaining === 0) openByUser.delete(userId);
    else openByUser.set(userId, remaining);
  }

  return {
    acquire(userId, response) {
      const open = openByUser.get(userId) ?? 0;
      if (open >= maxOpen) throw rateLimited(`At most ${maxOpen} of your requests may be open at once.`, 1);
      openByUser.set(userId, open + 1);
      onResponseClosed(response, () => {
        release(userId);
      });
    },
  };
}
