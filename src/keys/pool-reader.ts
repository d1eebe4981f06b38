import type { Keyring } from '../lib/crypto/keyring.ts';
import { createOwnerCache, type OwnerCache, type OwnerSnapshot } from '../lib/owner-cache.ts';
import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import { getUserId, parseOwner, type Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { keyStatusName, listKeyStatuses, INITIAL_KEY_STATUS, type KeyStatus } from './key-status-store.ts';
import { OWNERS_CHANNEL, readVaultIndex, writeVaultId } from './vault-index-store.ts';
import { decryptKey, parsePool, UNREADABLE_KEY_ID } from './stored-key.ts';
import type { Vault, VaultRecord } from './vault.ts';
import type { KeyWithStatus } from './key-view.ts';

/** Notifications of other processes about changed owners. */
export type OwnerNotifications = Pick<NotificationListener, 'isListening' | 'onNotification' | 'onGap'>;

export interface PoolReaderDeps {
  database: Database;
  vault: Pick<Vault, 'findRecord'>;
  providers: readonly Provider[];
  notifications: OwnerNotifications;
  log: Log;
}

/** The content of an owner's vault record, still encrypted. */
export interface OwnedKeys {
  /** Sorted by provider, then creation. */
  keys: readonly KeyWithStatus[];
  /** Ids of providers with values that are not stored keys, e.g. edited by hand. */
  unreadableProviders: ReadonlySet<string>;
}

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

/**
 * Reads an owner's encrypted keys from the vault and their status from the database.
 * Reads throw AppError `keycloak_unavailable`, `database_unavailable` (503); `key_undecryptable` (424) when a
 * known record is not found, or does not name its owner.
 */
export interface PoolReader extends Pick<
  OwnerCache<OwnedKeys>,
  'invalidate' | 'invalidateRecord' | 'isWriteDue'
> {
  /** Keys and status as they are now, without the cache. Sorted by provider, then creation. */
  readKeys(owner: Owner): Promise<readonly KeyWithStatus[]>;
  /**
   * For the hot path: cached. A change through this process takes effect at once, through another process within
   * 1 s, by an administrator in Keycloak within 10 s.
   */
  readPools(owner: Owner): Promise<OwnedKeys>;
}

export function createPoolReader(deps: PoolReaderDeps): PoolReader {
  const { database, vault, notifications, log } = deps;

  async function findRecord(owner: Owner, knownId: string | null): Promise<VaultRecord | undefined> {
    const record = await vault.findRecord(owner, knownId);
    if (isRecordMissing(record, knownId)) throw recordMissing(owner, knownId, log);
    if (record !== undefined && record.id !== knownId && record.values.size > 0) {
      // Only records with keys are indexed: with one realm, every user is a record, with or without keys.
      await database.withOwner(owner, (sql) => writeVaultId(sql, owner, record.id));
    }
    return record;
  }

  async function read(owner: Owner): Promise<OwnerSnapshot<OwnedKeys>> {
    const { before, statuses } = await database.withOwner(owner, async (sql) => ({
      before: await readVaultIndex(sql, owner),
      statuses: await listKeyStatuses(sql, owner),
    }));
    const record = await findRecord(owner, before.vaultId);
    // A write that began during the read has raised the generation: what was read may be outdated.
    const after = await database.withOwner(owner, (sql) => readVaultIndex(sql, owner));
    return {
      value: toOwnedKeys(deps, owner, record, statuses),
      recordId: record?.id ?? null,
      isCacheable: after.generation === before.generation && !before.isBeingWritten && !after.isBeingWritten,
    };
  }

  const cache = createOwnerCache({ read, isListening: () => notifications.isListening() });
  notifications.onNotification(OWNERS_CHANNEL, (payload) => {
    const parsed = parseOwner(payload);
    if (parsed !== undefined) cache.invalidate(parsed.owner);
  });
  notifications.onGap(() => {
    cache.clear();
  });

  return {
    readKeys: async (owner) => (await read(owner)).value.keys,
    readPools: (owner) => cache.get(owner),
    invalidate: (owner) => {
      cache.invalidate(owner);
    },
    invalidateRecord: (recordId) => {
      cache.invalidateRecord(recordId);
    },
    isWriteDue: (owner, note, withinMs) => cache.isWriteDue(owner, note, withinMs),
  };
}

/** The owner's stored keys by provider id, those of a provider sorted by creation, then id. Decrypts nothing. */
export async function readKeysByProvider(
  { reader, keyring }: { reader: Pick<PoolReader, 'readPools'>; keyring: Keyring },
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

function toOwnedKeys(
  { providers, log }: PoolReaderDeps,
  owner: Owner,
  record: VaultRecord | undefined,
  statuses: ReadonlyMap<string, KeyStatus>,
): OwnedKeys {
  const unreadableProviders = new Set<string>();
  const keys = providers.flatMap((provider) => {
    const pool = parsePool(record?.values.get(provider.id) ?? []);
    if (pool.unreadable.length > 0) {
      unreadableProviders.add(provider.id);
      log.warn(
        { owner, provider: provider.id, values: pool.unreadable.length },
        'a vault attribute holds values that are not stored keys',
      );
    }
    return pool.keys.map((stored) => ({
      provider,
      stored,
      status: statuses.get(keyStatusName(provider.id, stored.id)) ?? INITIAL_KEY_STATUS,
    }));
  });
  return { keys, unreadableProviders };
}

/**
 * True also when only an empty record with the owner's user name is found: that does not mean that the keys were
 * deleted.
 */
function isRecordMissing(record: VaultRecord | undefined, knownId: string | null): boolean {
  if (knownId === null) return false;
  return record === undefined || (record.id !== knownId && record.values.size === 0);
}

/**
 * An error, not an empty pool: with an empty pool the system default would silently pay for an owner whose record was
 * lost, or is searched in the wrong realm. Only Keycloak's event shows that an administrator deleted it.
 */
function recordMissing(owner: Owner, vaultId: string | null, log: Log): AppError {
  const user = getUserId(owner);
  const fields = { event: 'key_undecryptable', user, provider: null, key_id: null, vault_id: vaultId };
  log.warn(fields, 'a known vault record was not found');
  return new AppError(
    'key_undecryptable',
    'Your stored keys were not found. Ask an administrator to check them, or add a key to start again.',
    {
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
      cause: new Error(`vault record ${String(vaultId)} of ${owner} is not in Keycloak`),
    },
  );
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
