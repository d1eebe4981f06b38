import type { Response } from 'express';
import { rateLimited } from '../lib/errors.ts';
import { onResponseClosed } from './on-response-closed.ts';

export interface OpenRequestLimit {
  /**
   * Acquires a slot for one request. The slot is released when the response is closed.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): void;
}

/**
 * Limits the concurrent requests of each user in this process, since each holds its body and a connection.
 * @param maxOpen requests for each user.
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
      if (open >= maxOpen)
        throw rateLimited(
          `You can have at most ${maxOpen} open requests at once. Wait until one of them has finished.`,
          1,
        );
      openByUser.set(userId, open + 1);
      onResponseClosed(response, () => {
        release(userId);
      });
    },
  };
}
