import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import type { Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { keyStatusName, listKeyStatuses, INITIAL_KEY_STATUS, type KeyStatus } from './key-status-store.ts';
import { readVaultIndex, writeVaultId } from './vault-index-store.ts';
import { createPoolCache, type PoolCache, type PoolSnapshot } from './pool-cache.ts';
import { parsePool } from './stored-key.ts';
import type { Vault, VaultRecord } from './vault.ts';
import type { KeyWithStatus } from './views.ts';

export { OWNERS_CHANNEL } from './vault-index-store.ts';

/** What other processes tell of owners; the channel is {@link OWNERS_CHANNEL}. */
export type OwnerNotifications = Pick<NotificationListener, 'isListening' | 'onNotification' | 'onGap'>;

export interface KeyReaderDeps {
  database: Database;
  vault: Pick<Vault, 'findRecord'>;
  providers: readonly Provider[];
  notifications: OwnerNotifications;
  log: Log;
}

/** All that lies where an owner's keys lie, still sealed. */
export interface OwnedKeys {
  /** By provider, then creation. */
  keys: readonly KeyWithStatus[];
  /** Ids of providers under which something lies that is no key of ours, e.g. edited by hand. */
  unreadableProviders: ReadonlySet<string>;
}

/**
 * Reads what an owner has: the sealed keys from the vault, what is known of them from the database.
 * All throw AppError `keycloak_unavailable`, `database_unavailable` (503); `key_undecryptable` (424) when a
 * record that is known to exist is not found, or does not name its owner.
 */
export interface KeyReader extends Pick<
  PoolCache<OwnedKeys>,
  'invalidate' | 'invalidateRecord' | 'isWriteDue'
> {
  /** Keys and facts as they are now. By provider, then creation. */
  readKeys(owner: Owner): Promise<readonly KeyWithStatus[]>;
  /**
   * For the hot path: as remembered. A change through any process is seen within 1 s, at once in this one; an
   * administrator's within 10 s.
   */
  readPools(owner: Owner): Promise<OwnedKeys>;
}

export function createKeyReader(deps: KeyReaderDeps): KeyReader {
  const { database, vault, notifications: notices, log } = deps;

  async function findRecord(owner: Owner, knownId: string | null): Promise<VaultRecord | undefined> {
    const record = await vault.findRecord(owner, knownId);
    if (isRecordMissing(record, knownId)) throw recordMissing(owner, knownId, log);
    if (record !== undefined && record.id !== knownId && record.values.size > 0) {
      // Only where there is something to find again: a person who is their own record has one without keys.
      await database.withOwner(owner, (sql) => writeVaultId(sql, owner, record.id));
    }
    return record;
  }

  async function read(owner: Owner): Promise<PoolSnapshot<OwnedKeys>> {
    const { before, facts } = await database.withOwner(owner, async (sql) => ({
      before: await readVaultIndex(sql, owner),
      facts: await listKeyStatuses(sql, owner),
    }));
    const record = await findRecord(owner, before.vaultId);
    // A write that began while the vault was read has raised it: what was read may be of before.
    const after = await database.withOwner(owner, (sql) => readVaultIndex(sql, owner));
    return {
      value: toOwnedKeys(deps, owner, record, facts),
      recordId: record?.id ?? null,
      isCacheable: after.generation === before.generation && !before.isBeingWritten && !after.isBeingWritten,
    };
  }

  const cache = createPoolCache({ read, isListening: () => notices.isListening() });
  notices.onNotification((owner) => {
    cache.invalidate(owner as Owner);
  });
  notices.onGap(() => {
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
  { providers, log }: KeyReaderDeps,
  owner: Owner,
  record: VaultRecord | undefined,
  status: ReadonlyMap<string, KeyStatus>,
): OwnedKeys {
  const damaged = new Set<string>();
  const keys = providers.flatMap((provider) => {
    const pool = parsePool(record?.values.get(provider.id) ?? []);
    if (pool.unreadable.length > 0) {
      damaged.add(provider.id);
      log.warn({ owner, provider: provider.id, values: pool.unreadable.length }, 'values that are no keys');
    }
    return pool.keys.map((stored) => ({
      provider,
      stored,
      status: status.get(keyStatusName(provider.id, stored.id)) ?? INITIAL_KEY_STATUS,
    }));
  });
  return { keys, unreadableProviders: damaged };
}

/** Also when another, empty record has taken its name: nobody has said that the keys are to go. */
function isRecordMissing(record: VaultRecord | undefined, knownId: string | null): boolean {
  if (knownId === null) return false;
  return record === undefined || (record.id !== knownId && record.values.size === 0);
}

/**
 * Not "no keys": the system would silently pay for somebody whose record was lost, or is looked for in the wrong
 * place. That an administrator deleted it is said by the event alone.
 */
function recordMissing(owner: Owner, vaultId: string | null, log: Log): AppError {
  const user = owner.slice(owner.indexOf(':') + 1);
  const facts = { event: 'key_undecryptable', user, provider: null, key_id: null, vault_id: vaultId };
  log.warn(facts, 'a known vault record was not found');
  return new AppError(
    'key_undecryptable',
    'Your stored keys were not found where they were kept: an administrator must look. Adding a key starts anew.',
    {
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
      cause: new Error(`vault record ${String(vaultId)} of ${owner} is not in Keycloak`),
    },
  );
}
