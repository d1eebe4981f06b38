import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { previewOf } from './key-format.ts';
import { openKey, sealKey, valueOf, type StoredKey, type StoredPool } from './record.ts';
import type { UpdateKey } from './schema.ts';

/** A key that an owner wants to have stored. */
export interface KeyWish {
  owner: Owner;
  provider: Provider;
  id: string;
  /** True when the key of this id is to be replaced in place. */
  replaced: boolean;
  /** Empty in a replacement: the stored one stays. Else empty where the endpoint wants none. */
  key: string;
  /** Undefined in a replacement: as it is stored. The same holds for the next two. */
  label: string | null | undefined;
  endpoint: string | null | undefined;
  expiresAt: string | null | undefined;
  createdAt: Date;
}

/** What a change would store, from what is stored now. */
export interface Proposal {
  id: string;
  /** The key in the clear and where it may go. */
  content: Content;
  /** The key's own value. */
  value: string;
  /** All values of the provider's attribute. */
  values: readonly string[];
}

interface Content {
  secret: string;
  endpoint: string | null;
}

/** Keys per provider and owner; what readers of a vault attribute are built to hold. */
const MAX_POOL = 10;

/**
 * Proposes a new key, or one in the place of another.
 * @throws AppError `key_not_found`, `duplicate_key`, `pool_full`, `key_too_long`, `key_undecryptable`,
 *   `validation_failed`.
 */
export function proposeKey(keyring: Keyring, wish: KeyWish, pool: StoredPool): Proposal {
  const { owner, provider, id } = wish;
  const old = wish.replaced ? getStored(pool, provider, id) : undefined;
  const content = old === undefined ? newContent(wish) : replacedContent(keyring, wish, old);
  const others = pool.keys.filter((key) => key.id !== id);
  refuseDuplicate(keyring, wish, content, others);
  // A replacement adds nothing, also where a pool was overfilled by hand.
  if (old === undefined && others.length + pool.foreign.length >= MAX_POOL) {
    // Values that are no keys count too: an attribute must not grow without end.
    const detail = `There are ${MAX_POOL} keys of this provider already. Delete one first.`;
    throw new AppError('pool_full', detail);
  }
  const value = sealKey(keyring, {
    owner,
    provider: provider.id,
    id,
    key: content.secret,
    label: wish.label === undefined ? (old?.label ?? null) : wish.label,
    mask: previewOf(provider, content.secret),
    endpoint: content.endpoint,
    createdAt: old?.createdAt ?? wish.createdAt.toISOString(),
    expiresAt: wish.expiresAt === undefined ? (old?.expiresAt ?? null) : wish.expiresAt,
    enabled: old?.enabled ?? true,
  });
  return { id, content, value, values: valuesWith(pool, id, value) };
}

/**
 * Proposes another label, switch or expiry for a stored key.
 * @throws AppError `key_not_found`; `key_undecryptable` when the expiry, which is sealed, cannot be changed.
 */
export function proposeUpdate(
  keyring: Keyring,
  place: { owner: Owner; provider: Provider; id: string },
  change: UpdateKey,
  pool: StoredPool,
): Pick<Proposal, 'value' | 'values'> {
  const old = getStored(pool, place.provider, place.id);
  const shown = {
    ...old,
    label: change.label === undefined ? old.label : change.label,
    enabled: change.enabled ?? old.enabled,
  };
  const { expires_at: expiresAt } = change;
  const value =
    expiresAt === undefined || expiresAt === old.expiresAt
      ? valueOf(shown)
      : sealKey(keyring, {
          ...shown,
          owner: place.owner,
          provider: place.provider.id,
          key: getSecret(keyring, place, old).secret,
          expiresAt,
        });
  return { value, values: valuesWith(pool, place.id, value) };
}

/** True when two proposals would store the same key for the same address. */
export function isSameContent(a: Proposal, b: Proposal): boolean {
  return a.content.secret === b.content.secret && a.content.endpoint === b.content.endpoint;
}

function newContent({ key, endpoint }: KeyWish): Content {
  return { secret: key, endpoint: endpoint ?? null };
}

/**
 * What a replacement keeps is taken from inside the token: what stands outside can be edited in Keycloak, and
 * a new key would then go to an address that its owner never named.
 */
function replacedContent(keyring: Keyring, wish: KeyWish, old: StoredKey): Content {
  if (wish.key !== '' && wish.endpoint !== undefined) return newContent(wish);
  const stored = getSecret(keyring, wish, old);
  if (wish.key !== '') return { secret: wish.key, endpoint: stored.endpoint };
  const endpoint = wish.endpoint === undefined ? stored.endpoint : wish.endpoint;
  if (endpoint !== stored.endpoint && stored.secret !== '') {
    const message =
      'A changed endpoint needs the key again: the stored one goes only where it was meant to go.';
    throw new AppError('validation_failed', message, { errors: [{ path: 'key', message }] });
  }
  return { secret: stored.secret, endpoint };
}

function refuseDuplicate(
  keyring: Keyring,
  { owner, provider }: KeyWish,
  content: Content,
  others: readonly StoredKey[],
): void {
  const same = others.find((key) => {
    const opened = openKey(keyring, { owner, provider: provider.id }, key);
    return opened?.secret === content.secret && opened.endpoint === content.endpoint;
  });
  if (same === undefined) return;
  const name = same.label === null ? 'a key without a label' : `"${same.label}"`;
  throw new AppError('duplicate_key', `You have stored this key already, as ${name}.`, {
    extra: { existing_label: same.label },
  });
}

function getStored(pool: StoredPool, provider: Provider, id: string): StoredKey {
  const stored = pool.keys.find((key) => key.id === id);
  if (stored !== undefined) return stored;
  throw new AppError('key_not_found', `There is no such key of ${provider.name}.`);
}

function getSecret(
  keyring: Keyring,
  { owner, provider }: { owner: Owner; provider: Provider },
  stored: StoredKey,
): Content {
  const opened = openKey(keyring, { owner, provider: provider.id }, stored);
  if (opened !== undefined) return opened;
  throw new AppError(
    'key_undecryptable',
    'The stored key cannot be decrypted. Replace it: send key and endpoint.',
    { extra: { skipped: [{ key_id: stored.id, reason: 'undecryptable' }] } },
  );
}

/** Values that are no keys of ours stay, in case they can be mended by hand. Superseded ones are dropped. */
function valuesWith(pool: StoredPool, id: string, value: string): string[] {
  const others = pool.keys.filter((key) => key.id !== id).map((key) => key.value);
  return [...others, value, ...pool.foreign];
}
