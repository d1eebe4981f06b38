import { createHmac, createSecretKey } from 'node:crypto';

/** Replaces a user's `idempotency-key` on a provider key that several users share. */
export type MaskIdempotencyKey = (userId: string, value: string) => string;

/**
 * To the upstream, all users of one key are one client: a user who sends the value of another user would receive
 * that user's response. The mask differs per user and is stable for the same value.
 * @param secret shared by all instances of this deployment.
 */
export function createIdempotencyMask(secret: string): MaskIdempotencyKey {
  const key = createSecretKey(createHmac('sha256', secret).update('idempotency-key').digest());
  return (userId, value) => createHmac('sha256', key).update(`${userId}\0${value}`).digest('hex');
}
