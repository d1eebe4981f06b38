import { createHmac } from 'node:crypto';

/** What stands for a user's own `idempotency-key` on a key that several users share. */
export type MaskIdempotencyKey = (userId: string, value: string) => string;

/**
 * Several users behind one key are one client to the upstream: with the value that another user sent, one
 * would be given that user's answer. Each user gets values of their own, the same again for the same value.
 * @param secret what all instances of this deployment share.
 */
export function createIdempotencyMask(secret: string): MaskIdempotencyKey {
  const key = createHmac('sha256', secret).update('idempotency-key').digest();
  return (userId, value) => createHmac('sha256', key).update(`${userId}\0${value}`).digest('hex');
}
