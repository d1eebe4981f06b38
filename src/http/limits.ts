import type { Response } from 'express';
import { createSemaphore, type Semaphore } from '../lib/async/semaphore.ts';
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
   * Acquires a slot for one request; waits for one where the limit has a queue. The slot is released when the response
   * is closed.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): Promise<void>;
}

export interface RequestQueue {
  /** Waiting requests of one user. */
  maxQueued: number;
  /** How long a request waits for a slot. */
  waitMs: number;
}

interface UserRequests {
  slots: Semaphore;
  /** Open and waiting requests. */
  count: number;
}

const NO_QUEUE: RequestQueue = { maxQueued: 0, waitMs: 0 };

/** Limits the open requests of each user, since each holds its body and a connection. */
export function createOpenRequestLimit(maxOpen: number, queue: RequestQueue = NO_QUEUE): OpenRequestLimit {
  const byUser = new Map<string, UserRequests>();
  const createRejection = () =>
    rateLimited(
      `You can have at most ${maxOpen} open requests at once. Wait until one of them has finished.`,
      1,
    );

  /** @returns a function that uncounts the request. Later calls have no effect. */
  function count(userId: string, requests: UserRequests): () => void {
    if (requests.count >= maxOpen + queue.maxQueued) throw createRejection();
    requests.count += 1;
    byUser.set(userId, requests);
    let isCounted = true;
    return () => {
      if (isCounted) requests.count -= 1;
      isCounted = false;
      if (requests.count === 0 && byUser.get(userId) === requests) byUser.delete(userId);
    };
  }

  /** Waits at most `queue.waitMs`, and no longer than the client. */
  async function waitForSlot(slots: Semaphore, response: Response, uncount: () => void): Promise<() => void> {
    const waiting = new AbortController();
    const stopWaiting = () => {
      uncount();
      waiting.abort(createRejection());
    };
    const timer = setTimeout(stopWaiting, queue.waitMs);
    response.once('close', stopWaiting);
    try {
      return await slots.acquire(waiting.signal);
    } finally {
      clearTimeout(timer);
      response.off('close', stopWaiting);
    }
  }

  return {
    async acquire(userId, response) {
      const requests = byUser.get(userId) ?? { slots: createSemaphore(maxOpen), count: 0 };
      const uncount = count(userId, requests);
      const release = await waitForSlot(requests.slots, response, uncount);
      onResponseClosed(response, () => {
        release();
        uncount();
      });
    },
  };
}
