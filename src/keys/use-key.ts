import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { startCooldown, writeLastUse, writeTestStatus } from './key-status-store.ts';
import type { KeyWithStatus } from './key-view.ts';
import { decryptKey, UNREADABLE_KEY_ID } from './stored-key.ts';

/** A stored key as the gateway uses it, still encrypted. */
export interface ProviderKey {
  id: string;
  provider: string;
  label: string | null;
  endpoint: string | null;
  enabled: boolean;
  expiresAt: string | null;
  cooldownUntil: Date | null;
  /** As stored in the vault. A replaced key has another token. */
  token: string;
  /** False for a value that is not a stored key, most likely one that was edited by hand. Its endpoint is unknown. */
  isReadable: boolean;
  /** Undefined when no encryption key fits, the token was altered, or it was moved from where it was stored. */
  decrypt(): { secret: string; endpoint: string | null } | undefined;
}

/** Minimum interval between two status writes for the same key. */
const MIN_WRITE_INTERVAL_MS = 1_000;

/** The owner's stored keys by provider id, those of a provider sorted by creation, then id. Decrypts nothing. */
export async function readKeysByProvider(
  { reader, keyring }: KeyDeps,
  owner: Owner,
): Promise<ReadonlyMap<string, readonly ProviderKey[]>> {
  const { keys, unreadableProviders } = await reader.readPools(owner);
  const byProvider = Map.groupBy(
    keys.map((key) => toProviderKey(keyring, owner, key)),
    (key) => key.provider,
  );
  for (const provider of unreadableProviders)
    byProvider.set(provider, [...(byProvider.get(provider) ?? []), createUnreadableKey(provider)]);
  return byProvider;
}

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

function toProviderKey(
  keyring: Keyring,
  owner: Owner,
  { provider, stored, status }: KeyWithStatus,
): ProviderKey {
  const { id, label, endpoint, enabled, expiresAt, token } = stored;
  return {
    id,
    provider: provider.id,
    label,
    endpoint,
    enabled,
    expiresAt,
    cooldownUntil: status.cooldownUntil,
    token,
    isReadable: true,
    decrypt: () => decryptKey(keyring, { owner, provider: provider.id }, stored),
  };
}

/**
 * Represents values that are not stored keys, most likely keys that were edited by hand. An owner with only such values
 * has a failing key, not no key: the system default must not pay silently.
 */
function createUnreadableKey(provider: string): ProviderKey {
  return {
    id: UNREADABLE_KEY_ID,
    provider,
    label: null,
    endpoint: null,
    enabled: true,
    expiresAt: null,
    cooldownUntil: null,
    token: '',
    isReadable: false,
    decrypt: () => undefined,
  };
}
