import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { rateLimited } from './errors.ts';

export interface RateLimit {
  /**
   * Counts one use by `who`.
   * @returns what is left now.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds; `onRefused` hears the state before.
   */
  take(who: string, onRefused?: (state: RateState) => void): Promise<RateState>;
}

export interface RateState {
  /** Uses left in the running window. */
  left: number;
  /** Seconds until it ends, rounded up. */
  resetS: number;
}

export interface RateLimitOptions {
  /** Uses in a window, which begins with the first. */
  points: number;
  /** Seconds; a minute unless given. */
  windowS?: number;
  /** Told to whoever is refused. */
  refusal: string;
}

/** A limit per user, counted by this process alone and forgotten when it ends. */
export function createRateLimit({ points, windowS = 60, refusal }: RateLimitOptions): RateLimit {
  const limiter = new RateLimiterMemory({ points, duration: windowS });
  return {
    async take(who, onRefused) {
      try {
        return stateOf(await limiter.consume(who));
      } catch (reason) {
        if (!(reason instanceof RateLimiterRes)) throw reason;
        const state = stateOf(reason);
        onRefused?.(state);
        throw rateLimited(refusal, state.resetS);
      }
    },
  };
}

function stateOf({ remainingPoints, msBeforeNext }: RateLimiterRes): RateState {
  return { left: Math.max(remainingPoints, 0), resetS: Math.ceil(msBeforeNext / 1000) };
}
