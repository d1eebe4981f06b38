import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { rateLimited } from './errors.ts';

export interface RateLimit {
  /**
   * Counts one use of the user.
   * @returns the state after this use.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds, after calling `onRejected` with the state.
   */
  consume(userId: string, onRejected?: (state: RateLimitState) => void): Promise<RateLimitState>;
  /**
   * Counts nothing.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds when no use is left.
   */
  assertAvailable(userId: string): Promise<void>;
  /** Counts uses that have already happened, also beyond the limit. */
  add(userId: string, uses: number): Promise<void>;
}

export interface RateLimitState {
  /** Uses left in the current window. */
  remaining: number;
  /** Seconds until the window ends, rounded up. */
  resetS: number;
}

export interface RateLimitOptions {
  /** Uses per window. A window begins with the first use. */
  maxUses: number;
  /** In seconds; 60 by default. */
  windowS?: number;
  /** Detail of the 429 error. */
  rejectionDetail: string;
}

/** A limit per user, counted in the memory of this process. */
export function createRateLimit({ maxUses, windowS = 60, rejectionDetail }: RateLimitOptions): RateLimit {
  const limiter = new RateLimiterMemory({ points: maxUses, duration: windowS });
  return {
    async consume(userId, onRejected) {
      try {
        return toRateLimitState(await limiter.consume(userId));
      } catch (reason) {
        if (!(reason instanceof RateLimiterRes)) throw reason;
        const state = toRateLimitState(reason);
        onRejected?.(state);
        throw rateLimited(rejectionDetail, state.resetS);
      }
    },
    async assertAvailable(userId) {
      const counted = await limiter.get(userId);
      if (counted === null || counted.consumedPoints < maxUses) return;
      throw rateLimited(rejectionDetail, toRateLimitState(counted).resetS);
    },
    async add(userId, uses) {
      await limiter.penalty(userId, uses);
    },
  };
}

function toRateLimitState({ remainingPoints, msBeforeNext }: RateLimiterRes): RateLimitState {
  return { remaining: Math.max(remainingPoints, 0), resetS: Math.ceil(msBeforeNext / 1000) };
}
