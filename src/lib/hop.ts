import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { AppError } from './errors.ts';

/** Marks requests that we send to addresses that users brought, so that one which comes back is noticed. */
export interface Hops {
  /** The header's value for a request that goes on: what came, and ours behind it. */
  extend(received: string | undefined): string;
  /** Throws `loop_detected` (508) when the request has passed here before, or has passed too many gateways. */
  refuseLoop(received: string | undefined): void;
}

export const HOP_HEADER = 'x-ops-hop';
const MOST_HOPS = 4;
const LONGEST_HOP = 128;

/** @param secret what all instances of this deployment share. */
export function createHops(secret: string): Hops {
  const sign = (nonce: string) => createHmac('sha256', secret).update(`hop:${nonce}`).digest('base64url');
  const isOurs = (hop: string) => {
    const [nonce = '', signature = ''] = hop.split('.');
    const expected = Buffer.from(sign(nonce));
    const given = Buffer.from(signature);
    return given.length === expected.length && timingSafeEqual(given, expected);
  };
  return {
    extend(received) {
      const nonce = randomBytes(9).toString('base64url');
      return [...split(received), `${nonce}.${sign(nonce)}`].join(',');
    },
    refuseLoop(received) {
      const hops = split(received);
      if (hops.length < MOST_HOPS && !hops.some(isOurs)) return;
      throw new AppError(
        'loop_detected',
        'This request has come back to where it started; check the endpoint of your key.',
      );
    },
  };
}

function split(header: string | undefined): string[] {
  return (header ?? '')
    .split(',')
    .map((hop) => hop.trim())
    .filter((hop) => hop.length > 0 && hop.length <= LONGEST_HOP);
}
