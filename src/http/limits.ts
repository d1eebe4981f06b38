import type { Request, Response } from 'express';
import { createSemaphore, type Semaphore } from '../lib/async/semaphore.ts';
import { isAppError, rateLimited } from '../lib/errors.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import { onResponseClosed } from './on-response-closed.ts';
import { hasBody } from './read-body.ts';

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

/** 4,000 small bodies, or two of the largest that the gateway reads. */
const MAX_UNITS_PER_MINUTE = 4_000;
const BYTES_PER_UNIT = 16 * 1024;

/**
 * Statuses of requests that no other limit counts after their body was read. A 429 has such a limit, but that one counts
 * requests, not bytes.
 */
const REFUSAL_STATUSES = new Set([400, 404, 413, 415, 422, 424, 429]);

export interface RefusedBodyLimit {
  /**
   * Runs the handler of a request, and counts the request when its body is refused.
   * @throws AppError `rate_limited` (429) before the body is read, when the user's refused bodies reach the limit;
   *   what `handle` throws.
   */
  run(userId: string, request: Request, handle: () => Promise<void>): Promise<void>;
}

/**
 * Limits the bodies that are read for one user and then refused. No other limit counts them: rates of use begin after
 * the body was accepted. A request counts one unit and one more for each 16 KB received. The received bytes are those
 * of the connection, because a client that is cut off has not sent what it declared.
 */
export function createRefusedBodyLimit(): RefusedBodyLimit {
  const limit = createRateLimit({
    maxUses: MAX_UNITS_PER_MINUTE,
    rejectionDetail:
      'Too many of your requests were refused for their body. Correct them and try again later.',
  });
  return {
    async run(userId, request, handle) {
      if (!hasBody(request)) return handle();
      await limit.assertAvailable(userId);
      const { bytesRead } = request.socket;
      try {
        await handle();
      } catch (error) {
        if (isAppError(error) && REFUSAL_STATUSES.has(error.status))
          await limit.add(userId, 1 + Math.floor((request.socket.bytesRead - bytesRead) / BYTES_PER_UNIT));
        throw error;
      }
    },
  };
}
