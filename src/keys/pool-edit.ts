import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { maskKey } from './key-format.ts';
import { decryptKey, encryptKey, toStoredValue, type StoredKey, type StoredPool } from './stored-key.ts';
import type { UpdateKey } from './schema.ts';

/** A key that an owner wants to have stored. */
export interface KeyInput {
  owner: Owner;
  provider: Provider;
  id: string;
  /** True when the key of this id is to be replaced in place. */
  isReplacement: boolean;
  /** Empty in a replacement: the stored one stays. Else empty where the endpoint wants none. */
  key: string;
  /** Undefined in a replacement: as it is stored. The same holds for the next two. */
  label: string | null | undefined;
  endpoint: string | null | undefined;
  expiresAt: string | null | undefined;
  createdAt: Date;
}

/** What a change would store, from what is stored now. */
export interface PoolEdit {
  id: string;
  /** The key in the clear and where it may go. */
  content: KeyContent;
  /** The key's own value. */
  value: string;
  /** All values of the provider's attribute. */
  values: readonly string[];
}

interface KeyContent {
  secret: string;
  endpoint: string | null;
}

/** Keys per provider and owner; what readers of a vault attribute are built to hold. */
const MAX_KEYS_PER_POOL = 10;

/**
 * Proposes a new key, or one in the place of another.
 * @throws AppError `key_not_found`, `duplicate_key`, `pool_full`, `key_too_long`, `key_undecryptable`,
 *   `validation_failed`.
 */
export function createStoreEdit(keyring: Keyring, input: KeyInput, pool: StoredPool): PoolEdit {
  const { owner, provider, id } = input;
  const existing = input.isReplacement ? getStoredKey(pool, provider, id) : undefined;
  const content = existing === undefined ? toContent(input) : toReplacementContent(keyring, input, existing);
  const others = pool.keys.filter((key) => key.id !== id);
  assertNotDuplicate(keyring, input, content, others);
  // A replacement adds nothing, also where a pool was overfilled by hand.
  if (existing === undefined && others.length + pool.unreadable.length >= MAX_KEYS_PER_POOL) {
    // Values that are no keys count too: an attribute must not grow without end.
    const detail = `There are ${MAX_KEYS_PER_POOL} keys of this provider already. Delete one first.`;
    throw new AppError('pool_full', detail);
  }
  const value = encryptKey(keyring, {
    owner,
    provider: provider.id,
    id,
    key: content.secret,
    label: input.label === undefined ? (existing?.label ?? null) : input.label,
    mask: maskKey(provider, content.secret),
    endpoint: content.endpoint,
    createdAt: existing?.createdAt ?? input.createdAt.toISOString(),
    expiresAt: input.expiresAt === undefined ? (existing?.expiresAt ?? null) : input.expiresAt,
    enabled: existing?.enabled ?? true,
  });
  return { id, content, value, values: replaceValue(pool, id, value) };
}

/**
 * Proposes another label, switch or expiry for a stored key.
 * @throws AppError `key_not_found`; `key_undecryptable` when the expiry, which is sealed, cannot be changed.
 */
export function createUpdateEdit(
  keyring: Keyring,
  target: { owner: Owner; provider: Provider; id: string },
  change: UpdateKey,
  pool: StoredPool,
): Pick<PoolEdit, 'value' | 'values'> {
  const existing = getStoredKey(pool, target.provider, target.id);
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

/** True when two proposals would store the same key for the same address. */
export function isSameContent(a: PoolEdit, b: PoolEdit): boolean {
  return a.content.secret === b.content.secret && a.content.endpoint === b.content.endpoint;
}

function toContent({ key, endpoint }: KeyInput): KeyContent {
  return { secret: key, endpoint: endpoint ?? null };
}

/**
 * What a replacement keeps is taken from inside the token: what stands outside can be edited in Keycloak, and
 * a new key would then go to an address that its owner never named.
 */
function toReplacementContent(keyring: Keyring, input: KeyInput, existing: StoredKey): KeyContent {
  if (input.key !== '' && input.endpoint !== undefined) return toContent(input);
  const stored = getDecrypted(keyring, input, existing);
  if (input.key !== '') return { secret: input.key, endpoint: stored.endpoint };
  const endpoint = input.endpoint === undefined ? stored.endpoint : input.endpoint;
  if (endpoint !== stored.endpoint && stored.secret !== '') {
    const message =
      'A changed endpoint needs the key again: the stored one goes only where it was meant to go.';
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
    const opened = decryptKey(keyring, { owner, provider: provider.id }, key);
    return opened?.secret === content.secret && opened.endpoint === content.endpoint;
  });
  if (same === undefined) return;
  const name = same.label === null ? 'a key without a label' : `"${same.label}"`;
  throw new AppError('duplicate_key', `You have stored this key already, as ${name}.`, {
    extra: { existing_label: same.label },
  });
}

function getStoredKey(pool: StoredPool, provider: Provider, id: string): StoredKey {
  const stored = pool.keys.find((key) => key.id === id);
  if (stored !== undefined) return stored;
  throw new AppError('key_not_found', `There is no such key of ${provider.name}.`);
}

function getDecrypted(
  keyring: Keyring,
  { owner, provider }: { owner: Owner; provider: Provider },
  stored: StoredKey,
): KeyContent {
  const opened = decryptKey(keyring, { owner, provider: provider.id }, stored);
  if (opened !== undefined) return opened;
  throw new AppError(
    'key_undecryptable',
    'The stored key cannot be decrypted. Replace it: send key and endpoint.',
    { extra: { skipped: [{ key_id: stored.id, reason: 'undecryptable' }] } },
  );
}

/** Values that are no keys of ours stay, in case they can be mended by hand. Superseded ones are dropped. */
function replaceValue(pool: StoredPool, id: string, value: string): string[] {
  const others = pool.keys.filter((key) => key.id !== id).map((key) => key.value);
  return [...others, value, ...pool.unreadable];
}
