import { createHmac, createSecretKey, randomBytes, timingSafeEqual } from 'node:crypto';
import { AppError } from '../errors.ts';

/** Marks requests to users' addresses, so that a request that returns to this gateway is detected. */
export interface LoopGuard {
  /** The header's value for the outgoing request: the received entries and our own. */
  extendHeader(received: string | undefined): string;
  /** @throws AppError `loop_detected` (508) when the request has passed this or too many gateways. */
  rejectLoop(received: string | undefined): void;
}

export const LOOP_HEADER = 'x-ops-hop';
const MAX_GATEWAYS = 4;
const MAX_ENTRY_LENGTH = 128;

/** @param secret shared by all instances of this deployment. */
export function createLoopGuard(secret: string): LoopGuard {
  const key = createSecretKey(secret, 'utf8');
  const sign = (nonce: string) => createHmac('sha256', key).update(`hop:${nonce}`).digest('base64url');
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
        'This request came back to the gateway that sent it. Check the endpoint of your key.',
        // SDKs would repeat the loop.
        { headers: { 'x-should-retry': 'false' } },
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
