import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { AppError } from '../errors.ts';

/** Marks requests that we send to addresses that users brought, so that one which comes back is noticed. */
export interface LoopGuard {
  /** The header's value for a request that goes on: what came, and ours behind it. */
  extendHeader(received: string | undefined): string;
  /** Throws `loop_detected` (508) when the request has passed here before, or has passed too many gateways. */
  rejectLoop(received: string | undefined): void;
}

export const LOOP_HEADER = 'x-ops-hop';
const MAX_GATEWAYS = 4;
const MAX_ENTRY_LENGTH = 128;

/** @param secret what all instances of this deployment share. */
export function createLoopGuard(secret: string): LoopGuard {
  const sign = (nonce: string) => createHmac('sha256', secret).update(`hop:${nonce}`).digest('base64url');
  const isOurs = (entry: string) => {
    const [nonce = '', signature = ''] = entry.split('.');
    const expected = Buffer.from(sign(nonce));
    const given = Buffer.from(signature);
    return given.length === expected.length && timingSafeEqual(given, expected);
  };
  return {
    extendHeader(received) {
      const nonce = randomBytes(9).toString('base64url');
      return [...parseEntries(received), `${nonce}.${sign(nonce)}`].join(',');
    },
    rejectLoop(received) {
      const entries = parseEntries(received);
      if (entries.length < MAX_GATEWAYS && !entries.some(isOurs)) return;
      throw new AppError(
        'loop_detected',
        'This request has come back to where it started; check the endpoint of your key.',
      );
    },
  };
}

function parseEntries(header: string | undefined): string[] {
  return (header ?? '')
    .split(',')
    .map((entry) => entry.trim())
    .filter((entry) => entry.length > 0 && entry.length <= MAX_ENTRY_LENGTH);
}
