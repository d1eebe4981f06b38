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
  open: number;
  /** Functions that pass a slot to a waiting request, in the order of arrival. */
  waiting: Set<() => void>;
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

  function release(userId: string, requests: UserRequests): void {
    const [passSlot] = requests.waiting;
    if (passSlot === undefined) requests.open -= 1;
    else passSlot();
    if (requests.open === 0) byUser.delete(userId);
  }

  return {
    async acquire(userId, response) {
      const requests = byUser.get(userId) ?? { open: 0, waiting: new Set() };
      byUser.set(userId, requests);
      if (requests.open < maxOpen) requests.open += 1;
      else if (requests.waiting.size >= queue.maxQueued) throw createRejection();
      else await waitForSlot(requests.waiting, queue.waitMs, response, createRejection);
      onResponseClosed(response, () => {
        release(userId, requests);
      });
    },
  };
}

/** Rejects after `waitMs`, and when the client disconnects. */
function waitForSlot(
  waiting: Set<() => void>,
  waitMs: number,
  response: Response,
  createRejection: () => Error,
): Promise<undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>();
  const leaveQueue = () => {
    waiting.delete(takeSlot);
    clearTimeout(timer);
    response.off('close', giveUp);
  };
  const takeSlot = () => {
    leaveQueue();
    resolve(undefined);
  };
  const giveUp = () => {
    leaveQueue();
    reject(createRejection());
  };
  const timer = setTimeout(giveUp, waitMs);
  waiting.add(takeSlot);
  response.once('close', giveUp);
  return promise;
}
