import type { Principal, User } from '../http/principal.ts';
import type { Database } from '../lib/database.ts';
import { AppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Log } from '../lib/log.ts';
import type { Provider } from '../providers/provider.ts';
import { deleteFacts, markKey, markUsed, NO_FACTS, setAside } from './facts-store.ts';
import { checkKey, previewOf } from './key-format.ts';
import { createKeyReader } from './key-reader.ts';
import type { OwnerLock } from './owner-lock.ts';
import { createPoolWriter } from './pool-writer.ts';
import { openKey, readPool, sealKey, type Owner, type StoredPool } from './record.ts';
import type { AddKey, KeyAdded, KeysDeleted, KeyStats, KeyView, ProviderView } from './schema.ts';
import type { Vault } from './vault.ts';
import { keyStats, keyView, providerView, type KnownKey } from './views.ts';

export type { Owner } from './record.ts';

/** The owner that a person is. @param userId Keycloak's id of the user. */
export function ownerOf(userId: string): Owner {
  return `user:${userId}`;
}

export interface KeyServiceDeps {
  database: Database;
  lock: OwnerLock;
  vault: Vault;
  keyring: Keyring;
  /** The providers on offer in this mode, in the order in which people see them. */
  providers: readonly Provider[];
  dialer: { checkEndpoint(text: string): Promise<URL> };
  log: Log;
}

/** A stored key as the gateway uses it: still sealed. */
export interface PoolKey {
  id: string;
  provider: string;
  label: string | null;
  endpoint: string | null;
  enabled: boolean;
  expiresAt: string | null;
  setAsideUntil: Date | null;
  /** Decrypts; undefined when no key fits, the token was altered, or it lies where it was not put. */
  open(): { secret: string; endpoint: string | null } | undefined;
}

/** Provider keys of people. Nothing decrypted is kept. */
export interface KeyService {
  listProviders(user: User): Promise<ProviderView[]>;
  /** By creation, then id. Decrypts nothing. */
  listKeys(user: User): Promise<KeyView[]>;
  stats(user: User): Promise<KeyStats>;
  /**
   * Seals and stores a key.
   * @throws AppError `unknown_provider`, `invalid_key_format`, `wrong_provider_key`, `key_too_long`,
   *   `endpoint_forbidden`, `validation_failed`, `pool_full`, `busy`, `keycloak_unavailable`, `database_unavailable`.
   */
  add(principal: Principal, body: AddKey, requestId: string): Promise<KeyAdded>;
  /**
   * Deletes one key, or without `keyId` all of the provider's.
   * @throws AppError `unknown_provider`, `key_not_found`, `busy`, `keycloak_unavailable`, `database_unavailable`.
   */
  remove(
    principal: Principal,
    provider: string,
    keyId: string | undefined,
    requestId: string,
  ): Promise<KeysDeleted>;
  /** Every stored key of the owner by provider id, each pool by creation, then id. Decrypts nothing. */
  readPools(owner: Owner): Promise<ReadonlyMap<string, readonly PoolKey[]>>;
  /** Upstream answered 401: sets the key aside for 1, 5, 30 minutes, then hourly. */
  recordRefusal(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** `open()` answered undefined. */
  recordUndecryptable(owner: Owner, provider: string, keyId: string): Promise<void>;
  /** The key just served. */
  recordUse(owner: Owner, provider: string, keyId: string): Promise<void>;
}

/** In the place of an id, for values that are no keys; shown among skipped keys. */
const UNREADABLE = 'unreadable';
/** Keys per provider and owner; what readers of a vault attribute are built to hold. */
const MAX_POOL = 10;

export function createKeyService(deps: KeyServiceDeps): KeyService {
  return { ...createReads(deps), ...createWrites(deps), ...createRecords(deps) };
}

type Reads = Pick<KeyService, 'listProviders' | 'listKeys' | 'stats' | 'readPools'>;

function createReads(deps: KeyServiceDeps): Reads {
  const { keyring, providers } = deps;
  const reader = createKeyReader(deps);
  return {
    async listProviders(user) {
      const keys = await reader.readKeys(ownerOf(user.id));
      return providers.map((provider) =>
        providerView(provider, keys.filter((key) => key.provider === provider).length),
      );
    },

    async listKeys(user) {
      const keys = await reader.readKeys(ownerOf(user.id));
      return keys.map(keyView).sort(byCreation);
    },

    async stats(user) {
      return keyStats(user.tier, providers, await reader.readKeys(ownerOf(user.id)));
    },

    async readPools(owner) {
      const { keys, damaged } = await reader.readPools(owner);
      const pools = Map.groupBy(
        keys.map((key) => poolKey(keyring, owner, key)),
        (key) => key.provider,
      );
      for (const provider of damaged)
        pools.set(provider, [...(pools.get(provider) ?? []), unreadableKey(provider)]);
      return pools;
    },
  };
}

function createWrites(deps: KeyServiceDeps): Pick<KeyService, 'add' | 'remove'> {
  const writer = createPoolWriter(deps);
  return {
    async add(principal, body, requestId) {
      const provider = getProvider(deps.providers, body.provider);
      checkKey(provider, body.key, deps.providers);
      const endpoint = await checkEndpoint(deps.dialer, provider, body.endpoint);
      const id = randomId();
      const value = sealKey(deps.keyring, {
        owner: ownerOf(principal.user.id),
        provider: provider.id,
        id,
        key: body.key,
        label: body.label,
        mask: previewOf(provider, body.key),
        endpoint,
        createdAt: new Date().toISOString(),
        expiresAt: null,
        enabled: true,
      });
      await writer.write({
        ...changeOf(principal, provider, requestId),
        action: 'key.added',
        plan: (pool) => ({ values: withKey(pool, id, value), keyIds: [id] }),
      });
      return added(provider, value);
    },

    async remove(principal, providerId, keyId, requestId) {
      const provider = getProvider(deps.providers, providerId);
      // Kept over attempts: what an earlier one took away is no longer there for the next to find.
      const removed = new Set<string>();
      let damagedCount = 0;
      await writer.write({
        ...changeOf(principal, provider, requestId),
        action: 'key.deleted',
        plan(pool) {
          for (const { id } of pool.keys) if (keyId === undefined || id === keyId) removed.add(id);
          // "All" is all: the owner could not get rid of a value that was damaged in any other way.
          if (keyId === undefined) damagedCount = Math.max(damagedCount, pool.foreign.length);
          if (removed.size + damagedCount === 0) throw keyNotFound(provider);
          return {
            values: keyId === undefined ? [] : valuesWithout(pool, removed),
            keyIds: [...removed, ...(damagedCount > 0 ? [UNREADABLE] : [])],
          };
        },
        settle: (sql, keyIds) => deleteFacts(sql, ownerOf(principal.user.id), provider.id, keyIds),
      });
      const deleted = removed.size + damagedCount;
      return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
    },
  };
}

type Records = Pick<KeyService, 'recordRefusal' | 'recordUndecryptable' | 'recordUse'>;

function createRecords({ database }: KeyServiceDeps): Records {
  return {
    recordRefusal: (owner, provider, keyId) =>
      database.withOwner(owner, (sql) =>
        setAside(sql, [owner, provider, keyId], 'invalid', 'The provider refused it (401).'),
      ),
    recordUndecryptable: async (owner, provider, keyId) => {
      if (keyId === UNREADABLE) return;
      await database.withOwner(owner, (sql) =>
        markKey(sql, [owner, provider, keyId], 'undecryptable', 'It cannot be decrypted. Add it again.'),
      );
    },
    recordUse: (owner, provider, keyId) =>
      database.withOwner(owner, (sql) => markUsed(sql, [owner, provider, keyId])),
  };
}

function getProvider(providers: readonly Provider[], id: string): Provider {
  const provider = providers.find((known) => known.id === id);
  if (provider !== undefined) return provider;
  const known = providers.map((each) => each.id).join(', ');
  throw new AppError('unknown_provider', `There is no such provider. Known are: ${known}.`);
}

/** Answers where the key may be sent, as it will be dialled; null for the provider's own address. */
async function checkEndpoint(
  dialer: KeyServiceDeps['dialer'],
  provider: Provider,
  endpoint: string | null,
): Promise<string | null> {
  if (!provider.requiresEndpoint) {
    if (endpoint === null) return null;
    throw invalidEndpoint(`${provider.name} has an address of its own; leave endpoint out.`);
  }
  if (endpoint === null) throw invalidEndpoint(`${provider.name} needs an endpoint.`);
  const url = await dialer.checkEndpoint(endpoint);
  return url.href.replace(/\/+$/, '');
}

function added(provider: Provider, value: string): KeyAdded {
  const [stored] = readPool([value]).keys;
  if (stored === undefined) throw new Error('the value that was just made is no key');
  return {
    message: `${provider.name} key added.`,
    provider: provider.id,
    provider_name: provider.name,
    key: keyView({ provider, stored, facts: NO_FACTS }),
  };
}

function changeOf({ user }: Principal, provider: Provider, requestId: string) {
  const owner = ownerOf(user.id);
  return { owner, ownerName: user.username, provider: provider.id, actor: owner, requestId };
}

function withKey(pool: StoredPool, id: string, value: string): string[] {
  const others = valuesWithout(pool, new Set([id]));
  if (others.length < MAX_POOL) return [...others, value];
  throw new AppError('pool_full', `There are ${MAX_POOL} keys of this provider already. Delete one first.`);
}

/** Values that are no keys of ours stay, in case they can be mended by hand. Superseded ones are dropped. */
function valuesWithout(pool: StoredPool, ids: ReadonlySet<string>): string[] {
  return [...pool.keys.filter((key) => !ids.has(key.id)).map((key) => key.value), ...pool.foreign];
}

function poolKey(keyring: Keyring, owner: Owner, { provider, stored, facts }: KnownKey): PoolKey {
  const { id, label, endpoint, enabled, expiresAt } = stored;
  return {
    id,
    provider: provider.id,
    label,
    endpoint,
    enabled,
    expiresAt,
    setAsideUntil: facts.setAsideUntil,
    open: () => openKey(keyring, { owner, provider: provider.id }, stored),
  };
}

/**
 * Stands for what lies where keys lie and is none, most likely a key that was edited by hand. An owner who had
 * only that has a key that fails, not no key: the system must not pay for it silently.
 */
function unreadableKey(provider: string): PoolKey {
  return {
    id: UNREADABLE,
    provider,
    label: null,
    endpoint: null,
    enabled: true,
    expiresAt: null,
    setAsideUntil: null,
    open: () => undefined,
  };
}

function byCreation(a: KeyView, b: KeyView): number {
  const [left, right] = a.added_date === b.added_date ? [a.id, b.id] : [a.added_date, b.added_date];
  return left < right ? -1 : 1;
}

function keyNotFound(provider: Provider): AppError {
  return new AppError('key_not_found', `There is no such key of ${provider.name}.`);
}

function invalidEndpoint(message: string): AppError {
  return new AppError('validation_failed', message, { errors: [{ path: 'endpoint', message }] });
}
