import type { Request } from 'express';
import { isAppError } from '../lib/errors.ts';
import { createRateLimit } from '../lib/rate-limit.ts';

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
      const hasBody =
        request.headers['transfer-encoding'] !== undefined || request.headers['content-length'] !== undefined;
      if (!hasBody) return handle();
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
