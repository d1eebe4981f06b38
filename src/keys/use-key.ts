import type { Owner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { startCooldown, writeLastUse, writeTestStatus } from './key-status-store.ts';
import type { ProviderKey } from './pool-reader.ts';
import { UNREADABLE_KEY_ID } from './stored-key.ts';

/** Minimum interval between two status writes for the same key. */
const MIN_WRITE_INTERVAL_MS = 1_000;

/** Whether exactly this key is stored now: neither deleted nor replaced. Read without the cache. */
export async function isKeyStored(
  { reader }: KeyDeps,
  owner: Owner,
  { provider, id, token }: Pick<ProviderKey, 'provider' | 'id' | 'token'>,
): Promise<boolean> {
  const keys = await reader.readKeys(owner);
  return keys.some(
    (key) => key.provider.id === provider && key.stored.id === id && key.stored.token === token,
  );
}

/**
 * The upstream responded with status 401: starts a cooldown of 1, 5, 30, then 60 minutes. Other processes are notified;
 * the cache of this one is invalidated as soon as the status is written.
 */
export async function recordRefusal(
  { database, reader }: KeyDeps,
  owner: Owner,
  provider: string,
  keyId: string,
): Promise<void> {
  await database.withOwner(owner, (sql) =>
    startCooldown(sql, [owner, provider, keyId], 'invalid', 'The provider refused it (401).'),
  );
  reader.invalidate(owner);
}

/** `decrypt()` returned undefined. */
export async function recordUndecryptable(
  { database, reader }: KeyDeps,
  owner: Owner,
  provider: string,
  keyId: string,
): Promise<void> {
  const note = `undecryptable ${provider}/${keyId}`;
  if (keyId === UNREADABLE_KEY_ID || !reader.isWriteDue(owner, note, MIN_WRITE_INTERVAL_MS)) return;
  const message = 'It cannot be decrypted. Add it again.';
  await database.withOwner(owner, (sql) =>
    writeTestStatus(sql, [owner, provider, keyId], 'undecryptable', message),
  );
}

/** The key served a request. Caches are invalidated when that affects key selection. */
export async function recordUse(
  { database, reader }: KeyDeps,
  owner: Owner,
  provider: string,
  keyId: string,
): Promise<void> {
  if (!reader.isWriteDue(owner, `used ${provider}/${keyId}`, MIN_WRITE_INTERVAL_MS)) return;
  const isCleared = await database.withOwner(owner, (sql) => writeLastUse(sql, [owner, provider, keyId]));
  if (isCleared) reader.invalidate(owner);
}
