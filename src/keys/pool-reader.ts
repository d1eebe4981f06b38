import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import { getUserId, parseOwner, type Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { keyStatusName, listKeyStatuses, INITIAL_KEY_STATUS, type KeyStatus } from './key-status-store.ts';
import { OWNERS_CHANNEL, readVaultIndex, writeVaultId } from './vault-index-store.ts';
import { parsePool } from './stored-key.ts';
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

/**
 * Reads an owner's encrypted keys from the vault and their status from the database.
 * Reads throw AppError `keycloak_unavailable`, `database_unavailable` (503); `key_undecryptable` (424) when a
 * known record is not found, or does not name its owner.
 */
export interface PoolReader extends Pick<
  PoolCache<OwnedKeys>,
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

  async function read(owner: Owner): Promise<PoolSnapshot<OwnedKeys>> {
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

  const cache = createPoolCache({ read, isListening: () => notifications.isListening() });
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

/** The result of reading an owner's vault record. */
export interface PoolSnapshot<Value> {
  value: Value;
  /** The vault record that was read; null when there is none. */
  recordId: string | null;
  /** False when the owner's keys changed during the read: the result serves this request and is not cached. */
  isCacheable: boolean;
}

export interface PoolCacheDeps<Value> {
  read(owner: Owner): Promise<PoolSnapshot<Value>>;
  /** Whether notifications of other processes arrive. While they do not, nothing is cached or shared. */
  isListening(): boolean;
  /** A monotonic clock, in ms. */
  now?: () => number;
  maxEntries?: number;
}

/** Caches what was read of an owner until it changes, for at most 10 s. */
export interface PoolCache<Value> {
  /** @throws what `read` throws; an older result is not used then. */
  get(owner: Owner): Promise<Value>;
  /** Later calls of `get` read again and do not share a read in progress. */
  invalidate(owner: Owner): void;
  /** The same, for the owner of a vault record. */
  invalidateRecord(recordId: string): void;
  clear(): void;
  /**
   * False when the same note was written for the owner less than `withinMs` ago and the owner has not changed since.
   * Otherwise true, and the note counts as written now.
   */
  isWriteDue(owner: Owner, note: string, withinMs: number): boolean;
}

/** Changes made in Keycloak take effect within this time even without an event. */
const MAX_AGE_MS = 10_000;

interface CacheEntry<Value> {
  startedAtMs: number;
  snapshot: Promise<PoolSnapshot<Value>>;
  /** Undefined during the read. */
  recordId: string | null | undefined;
  /** Note -> time of its last write. */
  writtenAtMs: Map<string, number>;
}

/**
 * An entry exists from the start of its read, so that concurrent calls share the read. After an entry is removed during
 * its read, later calls start a new one.
 */
export function createPoolCache<Value>(deps: PoolCacheDeps<Value>): PoolCache<Value> {
  const { now = () => performance.now(), maxEntries = 2_000 } = deps;
  /** Oldest first. */
  const entries = new Map<Owner, CacheEntry<Value>>();

  function load(owner: Owner): CacheEntry<Value> {
    const entry: CacheEntry<Value> = {
      startedAtMs: now(),
      snapshot: deps.read(owner),
      recordId: undefined,
      writtenAtMs: new Map(),
    };
    entries.delete(owner);
    entries.set(owner, entry);
    evictStale();
    const remove = () => {
      if (entries.get(owner) === entry) entries.delete(owner);
    };
    entry.snapshot.then(({ recordId, isCacheable }) => {
      entry.recordId = recordId;
      if (!isCacheable) remove();
    }, remove);
    return entry;
  }

  function evictStale(): void {
    for (const [owner, entry] of entries) {
      if (isFresh(entry) && entries.size <= maxEntries) return;
      entries.delete(owner);
    }
  }

  function isFresh(entry: CacheEntry<Value>): boolean {
    return now() - entry.startedAtMs < MAX_AGE_MS;
  }

  return {
    async get(owner) {
      // A read in progress may have started before a change whose notification was lost.
      if (!deps.isListening()) return (await deps.read(owner)).value;
      const cached = entries.get(owner);
      const entry = cached !== undefined && isFresh(cached) ? cached : load(owner);
      return (await entry.snapshot).value;
    },

    invalidate: (owner) => void entries.delete(owner),

    invalidateRecord(recordId) {
      for (const [owner, entry] of entries) {
        // During a read, the record id is not known yet.
        if (entry.recordId === recordId || entry.recordId === undefined) entries.delete(owner);
      }
    },

    clear() {
      entries.clear();
    },

    isWriteDue(owner, note, withinMs) {
      const writtenAtMs = deps.isListening() ? entries.get(owner)?.writtenAtMs : undefined;
      const lastMs = writtenAtMs?.get(note);
      if (lastMs !== undefined && now() - lastMs < withinMs) return false;
      writtenAtMs?.set(note, now());
      return true;
    },
  };
}
