import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { rateLimited } from './errors.ts';

export interface RateLimit {
  /**
   * Counts one use by `who`.
   * @returns what is left now.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds; `onRefused` hears the state before.
   */
  consume(userId: string, onRejected?: (state: RateLimitState) => void): Promise<RateLimitState>;
}

export interface RateLimitState {
  /** Uses left in the running window. */
  remaining: number;
  /** Seconds until it ends, rounded up. */
  resetS: number;
}

export interface RateLimitOptions {
  /** Uses in a window, which begins with the first. */
  points: number;
  /** Seconds; a minute unless given. */
  windowS?: number;
  /** Told to whoever is refused. */
  rejectionDetail: string;
}

/** A limit per user, counted by this process alone and forgotten when it ends. */
export function createRateLimit({
  points,
  windowS = 60,
  rejectionDetail: refusal,
}: RateLimitOptions): RateLimit {
  const limiter = new RateLimiterMemory({ points, duration: windowS });
  return {
    async consume(userId, onRejected) {
      try {
        return toRateLimitState(await limiter.consume(userId));
      } catch (reason) {
        if (!(reason instanceof RateLimiterRes)) throw reason;
        const state = toRateLimitState(reason);
        onRejected?.(state);
        throw rateLimited(refusal, state.resetS);
      }
    },
  };
}

function toRateLimitState({ remainingPoints, msBeforeNext }: RateLimiterRes): RateLimitState {
  return { remaining: Math.max(remainingPoints, 0), resetS: Math.ceil(msBeforeNext / 1000) };
}
