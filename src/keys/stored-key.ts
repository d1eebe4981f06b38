import { createHash } from 'node:crypto';
import { z } from 'zod';
import { AppError } from '../lib/errors.ts';
import { findFernetTime } from '../lib/crypto/fernet.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { parseJson } from '../lib/json.ts';
import type { Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';

/** The key id of a value that is not a stored key. It appears in lists of skipped keys. */
export const UNREADABLE_KEY_ID = 'unreadable';

/** In UTF-16 units. Keycloak refuses longer attribute values under the policy ADMIN_EDIT. */
export const MAX_VALUE_LENGTH = 2048;

/** In a shorter key, four shown characters would reveal too much. */
const MIN_LENGTH_TO_SHOW = 16;
const SHOWN_SUFFIX_LENGTH = 4;

const FORMAT_VERSION = 1;
const PLAINTEXT_KIND = 'provider_key';

/** One value of a vault attribute. Members outside the token are for display; the token's content decides. */
const StoredValue = z.object({
  v: z.literal(FORMAT_VERSION),
  id: z.string().regex(/^[0-9A-Za-z]{1,32}$/),
  label: z.string().nullable(),
  mask: z.string(),
  created_at: z.iso.datetime(),
  expires_at: z.iso.datetime().nullable(),
  enabled: z.boolean(),
  endpoint: z.string().nullable(),
  token: z.string().min(1),
});

/** The plaintext of a token: the key with its owner, provider, id, endpoint and expiry. */
const Plaintext = z.strictObject({
  v: z.literal(FORMAT_VERSION),
  kind: z.literal(PLAINTEXT_KIND),
  owner: z.string(),
  provider: z.string(),
  id: z.string(),
  key: z.string(),
  endpoint: z.string().nullable(),
  expires_at: z.string().nullable(),
});

/** A stored key as read from the vault, still encrypted. */
export interface StoredKey {
  id: string;
  label: string | null;
  mask: string;
  createdAt: string;
  expiresAt: string | null;
  enabled: boolean;
  endpoint: string | null;
  token: string;
  /** The creation time of the token, to the second. */
  updatedAt: string;
  /** The value as read, byte for byte. Writes of other keys copy it and so cannot change it. */
  value: string;
}

/** Every value of one provider's attribute. */
export interface StoredPool {
  /** Sorted by creation, then id: Keycloak does not keep the order of values. */
  keys: readonly StoredKey[];
  /** Values that are not stored keys, e.g. entered by hand. Writes keep them unchanged. */
  unreadable: readonly string[];
  /** Older values of an id that occurs twice (Keycloak merged two writes). The next write drops them. */
  superseded: readonly string[];
}

/** Parses an attribute's values. Of values with the same id the newest token wins; unreadable values are kept. */
export function parsePool(values: readonly string[]): StoredPool {
  const newest = new Map<string, StoredKey>();
  const unreadable: string[] = [];
  const superseded: string[] = [];
  for (const value of values) {
    const key = parseValue(value);
    if (key === undefined) {
      unreadable.push(value);
      continue;
    }
    const other = newest.get(key.id);
    if (other === undefined || isNewer(key, other)) newest.set(key.id, key);
    if (other !== undefined) superseded.push(isNewer(key, other) ? other.value : value);
  }
  return { keys: [...newest.values()].sort(compareByCreation), unreadable, superseded };
}

/** At equal times the disabled value wins, then the greater text, so that every reader picks the same value. */
function isNewer(a: StoredKey, b: StoredKey): boolean {
  if (a.updatedAt !== b.updatedAt) return a.updatedAt > b.updatedAt;
  return a.enabled === b.enabled ? a.value > b.value : b.enabled;
}

/** For `sort`: by creation, then id. */
export function compareByCreation(a: StoredKey, b: StoredKey): number {
  const [left, right] = a.createdAt === b.createdAt ? [a.id, b.id] : [a.createdAt, b.createdAt];
  return left < right ? -1 : left > right ? 1 : 0;
}

function parseValue(value: string): StoredKey | undefined {
  const parsed = StoredValue.safeParse(parseJson(value));
  if (!parsed.success) return undefined;
  const { id, label, mask, created_at, expires_at, enabled, endpoint, token } = parsed.data;
  return {
    id,
    label,
    mask,
    createdAt: created_at,
    expiresAt: expires_at,
    enabled,
    endpoint,
    token,
    // A token that was edited by hand may have no time. The key is still listed.
    updatedAt: findFernetTime(token)?.toISOString() ?? created_at,
    value,
  };
}

/** The version of a key: 16 hexadecimal digits of the SHA-256 of its stored value. Uses and tests do not change it. */
export function toKeyVersion({ value }: Pick<StoredKey, 'value'>): string {
  return createHash('sha256').update(value).digest('hex').slice(0, 16);
}

/** What may be shown of a key: the provider's public prefix and the last four characters. */
export function maskKey(provider: Provider, key: string): string {
  if (key.length < MIN_LENGTH_TO_SHOW) return '…';
  const prefix = key.startsWith(provider.key.prefix) ? provider.key.prefix : '';
  return `${prefix}…${key.slice(-SHOWN_SUFFIX_LENGTH)}`;
}

/** What is encrypted together with a key. It must match where the key is stored. */
interface KeyBinding {
  owner: Owner;
  provider: string;
  id: string;
  /** Null for the provider's own address. */
  endpoint: string | null;
  /** ISO 8601; null = never. */
  expiresAt: string | null;
}

/** Encrypts a key together with its owner, provider, id, endpoint and expiry. */
function encryptToken(keyring: Keyring, binding: KeyBinding, key: string, time: Date | undefined): string {
  const { owner, provider, id, endpoint } = binding;
  const plaintext: z.output<typeof Plaintext> = {
    v: FORMAT_VERSION,
    kind: PLAINTEXT_KIND,
    owner,
    provider,
    id,
    key,
    endpoint,
    expires_at: binding.expiresAt,
  };
  return keyring.encrypt(JSON.stringify(plaintext), time);
}

/**
 * Builds the value that is stored for a key.
 * @throws AppError `key_too_long` (400) when Keycloak would refuse it; ZodError when it could not be read back.
 */
export function toStoredValue(key: Omit<StoredKey, 'updatedAt' | 'value'>): string {
  const value: z.output<typeof StoredValue> = {
    v: FORMAT_VERSION,
    id: key.id,
    label: key.label,
    mask: key.mask,
    created_at: key.createdAt,
    expires_at: key.expiresAt,
    enabled: key.enabled,
    endpoint: key.endpoint,
    token: key.token,
  };
  const text = JSON.stringify(StoredValue.parse(value));
  if (text.length > MAX_VALUE_LENGTH) {
    const detail = 'Key, label and endpoint together are too long. Shorten the label or the endpoint.';
    throw new AppError('key_too_long', detail);
  }
  return text;
}

export interface NewKey extends KeyBinding {
  key: string;
  label: string | null;
  mask: string;
  createdAt: string;
  enabled: boolean;
}

/**
 * Encrypts a key and builds the value that is stored.
 * @param time the time of the change; now by default.
 * @throws AppError `key_too_long` (400).
 */
export function encryptKey(keyring: Keyring, { key, ...binding }: NewKey, time?: Date): string {
  return toStoredValue({ ...binding, token: encryptToken(keyring, binding, key, time) });
}

/**
 * Decrypts a stored key and compares the plaintext with where the key is stored. Fernet has no associated data.
 * Without the comparison, an administrator of users in Keycloak could give one user's key to another user, or
 * send it to another endpoint.
 * @returns undefined when it does not decrypt or anything differs; the two cases are not distinguished.
 */
export function decryptKey(
  keyring: Keyring,
  location: { owner: Owner; provider: string },
  stored: Pick<StoredKey, 'id' | 'token' | 'endpoint' | 'expiresAt'>,
): { secret: string; endpoint: string | null } | undefined {
  const plaintext = keyring.decrypt(stored.token);
  const content = plaintext === undefined ? undefined : Plaintext.safeParse(parseJson(plaintext)).data;
  if (content === undefined) return undefined;
  const isBoundHere =
    content.owner === location.owner &&
    content.provider === location.provider &&
    content.id === stored.id &&
    content.endpoint === stored.endpoint &&
    content.expires_at === stored.expiresAt;
  return isBoundHere ? { secret: content.key, endpoint: content.endpoint } : undefined;
}

/** 404 for an id that none of the provider's stored keys has. */
export function keyNotFound({ name }: Provider): AppError {
  return new AppError('key_not_found', `There is no such key of ${name}.`);
}
