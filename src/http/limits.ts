import type { Response } from 'express';
import { rateLimited } from '../lib/errors.ts';
import { onResponseClosed } from './on-response-closed.ts';

export interface ConcurrencyLimit {
  /**
   * Acquires a slot of the user.
   * @returns a function that releases the slot. Later calls have no effect.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string): () => void;
}

/**
 * Limits what each user does at once in this process.
 * @param rejectionDetail detail of the 429 error.
 */
export function createConcurrencyLimit(maxConcurrent: number, rejectionDetail: string): ConcurrencyLimit {
  const countByUser = new Map<string, number>();

  function add(userId: string, change: 1 | -1): void {
    const count = (countByUser.get(userId) ?? 0) + change;
    if (count === 0) countByUser.delete(userId);
    else countByUser.set(userId, count);
  }

  return {
    acquire(userId) {
      if ((countByUser.get(userId) ?? 0) >= maxConcurrent) throw rateLimited(rejectionDetail, 1);
      add(userId, 1);
      let isReleased = false;
      return () => {
        if (!isReleased) add(userId, -1);
        isReleased = true;
      };
    },
  };
}

export interface OpenRequestLimit {
  /**
   * Acquires a slot for one request. The slot is released when the response is closed.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): void;
}

/** Limits the open requests of each user, since each holds its body and a connection. */
export function createOpenRequestLimit(maxOpen: number): OpenRequestLimit {
  const limit = createConcurrencyLimit(
    maxOpen,
    `You can have at most ${maxOpen} open requests at once. Wait until one of them has finished.`,
  );
  return {
    acquire(userId, response) {
      onResponseClosed(response, limit.acquire(userId));
    },
  };
}
