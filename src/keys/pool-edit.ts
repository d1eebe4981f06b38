import { assertVersionMatches } from '../http/versions.ts';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import { toEndpointSlug } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';
import {
  decryptKey,
  encryptKey,
  keyNotFound,
  maskKey,
  toKeyVersion,
  toStoredValue,
  UNREADABLE_KEY_ID,
  type NewKey,
  type StoredKey,
  type StoredPool,
} from './stored-key.ts';
import type { UpdateKey } from './schema.ts';

/** A key to store, new or as a replacement. */
export interface KeyInput {
  owner: Owner;
  provider: Provider;
  id: string;
  /** True when the stored key with this id is replaced in place. */
  isReplacement: boolean;
  /** Empty in a replacement: the stored key stays. Otherwise empty where the endpoint needs no key. */
  key: string;
  /** Undefined in a replacement: stays as stored. The same applies to endpoint and expiry. */
  label: string | null | undefined;
  endpoint: string | null | undefined;
  expiresAt: string | null | undefined;
  /** The `If-Match` header of a replacement. */
  ifMatch?: string | undefined;
  /** Of a key that another system stored before; by default the time of the change. */
  createdAt?: Date | undefined;
}

/** What a change stores, computed from what is stored now. */
export interface PoolEdit {
  id: string;
  /** The decrypted key and its endpoint. */
  content: KeyContent;
  /** The value of the changed key. */
  value: string;
  /** All values of the provider's attribute. */
  values: readonly string[];
}

interface KeyContent {
  secret: string;
  endpoint: string | null;
}

/** Per provider and owner. Readers of a vault attribute are sized for it. */
const MAX_KEYS_PER_POOL = 10;

/**
 * Adds a key to a pool or replaces one.
 * @throws AppError `key_not_found`, `duplicate_key`, `pool_full`, `key_too_long`, `key_undecryptable`,
 *   `validation_failed`, also for an endpoint that has the slug of another one; `version_mismatch`.
 * @param overwritten what an earlier attempt of this write has stored.
 */
export function createAddEdit(
  keyring: Keyring,
  input: KeyInput,
  pool: StoredPool,
  overwritten?: WrittenKey,
): PoolEdit {
  const { owner, provider, id } = input;
  const existing = input.isReplacement ? getStoredKey(pool, provider, id) : undefined;
  if (existing !== undefined) assertKeyVersion(existing, input.ifMatch, overwritten);
  const content = existing === undefined ? toContent(input) : toReplacementContent(keyring, input, existing);
  const others = pool.keys.filter((key) => key.id !== id);
  assertNotDuplicate(keyring, input, content, others);
  if (!pool.keys.some((key) => key.endpoint === content.endpoint))
    assertDistinctSlug(provider, content.endpoint, others);
  // A replacement does not grow the pool, also where the pool was overfilled by hand.
  if (existing === undefined && others.length + pool.unreadable.length >= MAX_KEYS_PER_POOL) {
    // Unreadable values count too, so that an attribute cannot grow without limit.
    const detail = `There are ${MAX_KEYS_PER_POOL} keys of this provider already. Delete one first.`;
    throw new AppError('pool_full', detail);
  }
  const now = new Date();
  const newKey: NewKey = {
    owner,
    provider: provider.id,
    id,
    key: content.secret,
    label: input.label === undefined ? (existing?.label ?? null) : input.label,
    mask: maskKey(provider, content.secret),
    endpoint: content.endpoint,
    createdAt: existing?.createdAt ?? (input.createdAt ?? now).toISOString(),
    expiresAt: input.expiresAt === undefined ? (existing?.expiresAt ?? null) : input.expiresAt,
    enabled: existing?.enabled ?? true,
  };
  // One reading of the clock, so that a new key is not updated before or after it was added.
  const value = encryptKey(keyring, newKey, now);
  return { id, content, value, values: replaceValue(pool, id, value) };
}

/**
 * Changes label, enabled state or expiry of a stored key.
 * @throws AppError `key_not_found`; `version_mismatch`; `key_undecryptable` when the expiry changes, which needs the key
 *   decrypted.
 * @param overwritten what an earlier attempt of this change has stored.
 */
export function createUpdateEdit(
  keyring: Keyring,
  target: { owner: Owner; provider: Provider; id: string; ifMatch: string | undefined },
  change: UpdateKey,
  pool: StoredPool,
  overwritten?: WrittenKey,
): Pick<PoolEdit, 'value' | 'values'> {
  const existing = getStoredKey(pool, target.provider, target.id);
  assertKeyVersion(existing, target.ifMatch, overwritten);
  const updated = {
    ...existing,
    label: change.label === undefined ? existing.label : change.label,
    enabled: change.enabled ?? existing.enabled,
  };
  const { expires_at: expiresAt } = change;
  const value =
    expiresAt === undefined || expiresAt === existing.expiresAt
      ? toStoredValue(updated)
      : encryptKey(keyring, {
          ...updated,
          owner: target.owner,
          provider: target.provider.id,
          key: getDecrypted(keyring, target, existing).secret,
          expiresAt,
        });
  return { value, values: replaceValue(pool, target.id, value) };
}

/** What a removal has deleted in all its attempts. */
interface Removal {
  ids: ReadonlySet<string>;
  /** Values that are not stored keys. */
  unreadableCount: number;
}

const NO_REMOVAL: Removal = { ids: new Set(), unreadableCount: 0 };

export interface RemovalEdit {
  values: readonly string[];
  keyIds: readonly string[];
  removal: Removal;
  status: { kind: 'reset' };
}

/**
 * Removes one key, or without `keyId` everything.
 * @param target `ifMatch` is the `If-Match` header for `keyId`.
 * @param earlier what earlier attempts of the same removal have found.
 * @throws AppError `key_not_found`; `version_mismatch`.
 */
export function createRemovalEdit(
  provider: Provider,
  { keyId, ifMatch }: { keyId: string | undefined; ifMatch: string | undefined },
  pool: StoredPool,
  earlier = NO_REMOVAL,
): RemovalEdit {
  const targets = pool.keys.filter(({ id }) => keyId === undefined || id === keyId);
  if (keyId !== undefined) for (const key of targets) assertKeyVersion(key, ifMatch);
  const found = targets.map(({ id }) => id);
  const ids = new Set([...earlier.ids, ...found]);
  // "All" includes unreadable values: the owner has no other way to remove them.
  const unreadableCount = keyId === undefined ? Math.max(earlier.unreadableCount, pool.unreadable.length) : 0;
  if (ids.size + unreadableCount === 0) throw keyNotFound(provider);
  const kept = pool.keys.filter(({ id }) => !ids.has(id)).map(({ value }) => value);
  return {
    values: keyId === undefined ? [] : [...kept, ...pool.unreadable],
    keyIds: [...ids, ...(unreadableCount > 0 ? [UNREADABLE_KEY_ID] : [])],
    removal: { ids, unreadableCount },
    status: { kind: 'reset' },
  };
}

/** What an attempt to write a key has stored. */
type WrittenKey = Pick<PoolEdit, 'value'>;

/**
 * Keycloak can keep the key of a write whose other values were overwritten: then the stored value is that of the same
 * change, and no one else has changed the key.
 */
function assertKeyVersion(stored: StoredKey, ifMatch: string | undefined, overwritten?: WrittenKey): void {
  if (stored.value !== overwritten?.value) assertVersionMatches('key', toKeyVersion(stored), ifMatch);
}

/** True when two edits store the same key for the same endpoint. */
export function isSameContent(a: PoolEdit, b: PoolEdit): boolean {
  return a.content.secret === b.content.secret && a.content.endpoint === b.content.endpoint;
}

function toContent({ key, endpoint }: KeyInput): KeyContent {
  return { secret: key, endpoint: endpoint ?? null };
}

/**
 * A replacement keeps the key or the endpoint from inside the token. Members outside the token can be edited in
 * Keycloak: a new key would then go to an endpoint that its owner never named.
 */
function toReplacementContent(keyring: Keyring, input: KeyInput, existing: StoredKey): KeyContent {
  if (input.key !== '' && input.endpoint !== undefined) return toContent(input);
  const stored = getDecrypted(keyring, input, existing);
  if (input.key !== '') return { secret: input.key, endpoint: stored.endpoint };
  const endpoint = input.endpoint === undefined ? stored.endpoint : input.endpoint;
  if (endpoint !== stored.endpoint && stored.secret !== '') {
    const message =
      'A changed endpoint needs the key again: the stored key is only sent to the endpoint it was stored for.';
    throw new AppError('validation_failed', message, { errors: [{ path: 'key', message }] });
  }
  return { secret: stored.secret, endpoint };
}

function assertNotDuplicate(
  keyring: Keyring,
  { owner, provider }: KeyInput,
  content: KeyContent,
  others: readonly StoredKey[],
): void {
  const same = others.find((key) => {
    const decrypted = decryptKey(keyring, { owner, provider: provider.id }, key);
    return decrypted?.secret === content.secret && decrypted.endpoint === content.endpoint;
  });
  if (same === undefined) return;
  const name = same.label === null ? 'a key without a label' : `"${same.label}"`;
  throw new AppError('duplicate_key', `You have stored this key already, as ${name}.`, {
    extra: { existing_label: same.label },
  });
}

/** Two endpoints with one slug, for example with `http:` and `https:`, would have the same names in model names and headers. */
function assertDistinctSlug(provider: Provider, endpoint: string | null, others: readonly StoredKey[]): void {
  const slug = toEndpointSlug(provider, endpoint);
  if (slug === null) return;
  const other = others.find((key) => toEndpointSlug(provider, key.endpoint) === slug);
  if (other === undefined) return;
  const shown = other.endpoint ?? "the operator's address";
  const message =
    `You have a key for ${shown}, and both addresses are named “${slug}” in model names. ` +
    'Use that address, or delete its keys first.';
  throw new AppError('validation_failed', message, { errors: [{ path: 'endpoint', message }] });
}

function getStoredKey(pool: StoredPool, provider: Provider, id: string): StoredKey {
  const stored = pool.keys.find((key) => key.id === id);
  if (stored !== undefined) return stored;
  throw keyNotFound(provider);
}

function getDecrypted(
  keyring: Keyring,
  { owner, provider }: { owner: Owner; provider: Provider },
  stored: StoredKey,
): KeyContent {
  const decrypted = decryptKey(keyring, { owner, provider: provider.id }, stored);
  if (decrypted !== undefined) return decrypted;
  throw new AppError(
    'key_undecryptable',
    'The stored key cannot be decrypted. Replace it: send key and endpoint.',
    { extra: { skipped: [{ key_id: stored.id, reason: 'undecryptable' }] } },
  );
}

/** Unreadable values stay, since they may be repaired by hand. Superseded values are dropped. */
function replaceValue(pool: StoredPool, id: string, value: string): string[] {
  const others = pool.keys.filter((key) => key.id !== id).map((key) => key.value);
  return [...others, value, ...pool.unreadable];
}
