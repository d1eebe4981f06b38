import { z } from 'zod';
import { AppError } from '../lib/errors.ts';
import { findFernetTime } from '../lib/crypto/fernet.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';

/** In the place of an id, for values that are no keys; shown among skipped keys. */
export const UNREADABLE_KEY_ID = 'unreadable';

/** Keycloak refuses longer attribute values under the policy ADMIN_EDIT (UTF-16 units). */
export const MAX_VALUE_LENGTH = 2048;

const FORMAT_VERSION = 1;
const PLAINTEXT_KIND = 'provider_key';

/** One value of a vault attribute. What stands outside the token is for display; the token decides. */
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

/** What is sealed: the key with everything that says whose it is and where it may go. */
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

/** A stored key as it lies in the vault, still sealed. */
export interface StoredKey {
  id: string;
  label: string | null;
  mask: string;
  createdAt: string;
  expiresAt: string | null;
  enabled: boolean;
  endpoint: string | null;
  token: string;
  /** The token's own time, to the second. */
  updatedAt: string;
  /** The value byte for byte as it was read, so that a write to a neighbour cannot change it. */
  value: string;
}

/** Every value of one provider's attribute. */
export interface StoredPool {
  /** By creation, then id: Keycloak does not keep the order of values. */
  keys: readonly StoredKey[];
  /** Values that are no keys of ours, e.g. typed in by hand. Writes carry them along untouched. */
  unreadable: readonly string[];
  /** Older values of an id that stands twice (two writers merged by Keycloak). The next write drops them. */
  superseded: readonly string[];
}

/** Reads an attribute's values: unique ids, the newest token wins; nothing that is unreadable is lost. */
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
  return { keys: [...newest.values()].sort(byCreation), unreadable, superseded };
}

/** On a tie the one that is switched off wins; then the text, so that every reader picks the same one. */
function isNewer(a: StoredKey, b: StoredKey): boolean {
  if (a.updatedAt !== b.updatedAt) return a.updatedAt > b.updatedAt;
  return a.enabled === b.enabled ? a.value > b.value : b.enabled;
}

function byCreation(a: StoredKey, b: StoredKey): number {
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
    // A token that was edited by hand may have no time; the key is then still listed.
    updatedAt: findFernetTime(token)?.toISOString() ?? created_at,
    value,
  };
}

/** Whose a key is and where it may go: what is sealed together with it. */
interface KeyBinding {
  owner: Owner;
  provider: string;
  id: string;
  /** Null where it goes to the provider's own address. */
  endpoint: string | null;
  /** ISO 8601; null = never. */
  expiresAt: string | null;
}

/** Seals a key together with its owner, destination and expiry. */
function encryptToken(keyring: Keyring, binding: KeyBinding, key: string): string {
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
  return keyring.encrypt(JSON.stringify(plaintext));
}

/**
 * The value that is stored for a key.
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
    throw new AppError('key_too_long', 'Key, label and endpoint together are too long.');
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

/** Seals a key and makes the value that is stored. @throws AppError `key_too_long` (400). */
export function encryptKey(keyring: Keyring, { key, ...own }: NewKey): string {
  return toStoredValue({ ...own, token: encryptToken(keyring, own, key) });
}

/**
 * Opens a stored key and compares what was sealed with where it lies now. Fernet has no associated data:
 * without the comparison, whoever can edit users in Keycloak could hand one person's key to another, or
 * send it to an endpoint of their own.
 * @returns undefined when it does not decrypt or anything differs; the two are not told apart.
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

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
