import type { Response } from 'express';
import { createConcurrencyLimit } from '../../http/limits.ts';
import { createRateLimit, type RateLimitState } from '../../lib/rate-limit.ts';

export interface SystemLimits {
  /**
   * Acquires a slot for one request that the system pays for and writes the `RateLimit` headers.
   * @returns function that releases the slot.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  acquire(userId: string, response: Response): Promise<() => void>;
}

const MAX_CONCURRENT = 4;
const MAX_PER_MINUTE = 30;
const WINDOW_S = 60;

/** Limits for each user and process: 4 concurrent requests, 30 a minute. */
export function createSystemLimits(): SystemLimits {
  const perMinute = createRateLimit({
    points: MAX_PER_MINUTE,
    windowS: WINDOW_S,
    rejectionDetail: `The system pays for at most ${MAX_PER_MINUTE} requests a minute. Add your own key or try again later.`,
  });
  const concurrency = createConcurrencyLimit(
    MAX_CONCURRENT,
    `The system pays for at most ${MAX_CONCURRENT} requests at once. Add your own key or try again later.`,
  );
  return {
    async acquire(userId, response) {
      const release = concurrency.acquire(userId);
      try {
        const report = (state: RateLimitState) => {
          writeRateLimitHeaders(response, state);
        };
        report(await perMinute.consume(userId, report));
        return release;
      } catch (error) {
        release();
        throw error;
      }
    },
  };
}

/** draft-ietf-httpapi-ratelimit-headers: `q` quota, `w` window in seconds, `r` remaining, `t` seconds to the reset. */
function writeRateLimitHeaders(response: Response, { remaining, resetS }: RateLimitState): void {
  response.setHeader('ratelimit-policy', `"system";q=${MAX_PER_MINUTE};w=${WINDOW_S}`);
  response.setHeader('ratelimit', `"system";r=${remaining};t=${resetS}`);
}
