import type { Response } from 'express';
import { rateLimited } from '../lib/errors.ts';
import { createRateLimit, type RateState } from '../lib/rate-limit.ts';

export interface SystemLimits {
  /**
   * Takes a place for one request that the system pays for, and says so in the `RateLimit` headers.
   * @returns gives the place back.
   * @throws AppError `rate_limited` (429) with `Retry-After` in seconds.
   */
  enter(userId: string, response: Response): Promise<() => void>;
}

const AT_ONCE = 4;
const PER_MINUTE = 30;
const WINDOW_S = 60;

/** Limits per user and process: 4 requests at once, 30 a minute. */
export function createSystemLimits(): SystemLimits {
  const perMinute = createRateLimit({
    points: PER_MINUTE,
    windowS: WINDOW_S,
    refusal: `At most ${PER_MINUTE} requests a minute are paid by the system. Add a key of your own.`,
  });
  const running = new Map<string, number>();
  return {
    async enter(userId, response) {
      const now = running.get(userId) ?? 0;
      if (now >= AT_ONCE) throw rateLimited(`At most ${AT_ONCE} requests at once are paid by the system.`, 1);
      running.set(userId, now + 1);
      let given = false;
      const leave = () => {
        if (given) return;
        given = true;
        const left = (running.get(userId) ?? 1) - 1;
        if (left === 0) running.delete(userId);
        else running.set(userId, left);
      };
      try {
        const tell = (state: RateState) => {
          writeLimit(response, state);
        };
        tell(await perMinute.take(userId, tell));
        return leave;
      } catch (error) {
        leave();
        throw error;
      }
    },
  };
}

/** draft-ietf-httpapi-ratelimit-headers: `q` quota, `w` window in seconds, `r` remaining, `t` seconds to the reset. */
function writeLimit(response: Response, { left, resetS }: RateState): void {
  response.setHeader('ratelimit-policy', `"system";q=${PER_MINUTE};w=${WINDOW_S}`);
  response.setHeader('ratelimit', `"system";r=${left};t=${resetS}`);
}
