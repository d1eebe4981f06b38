import type { Database } from '../lib/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Notifications } from '../lib/notifications.ts';
import type { Owner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { factsName, listFacts, NO_FACTS, type KeyFacts } from './facts-store.ts';
import { readOwner, rememberVaultId } from './owners-store.ts';
import { createPoolCache, type PoolCache, type Reading } from './pool-cache.ts';
import { readPool } from './record.ts';
import type { Vault, VaultRecord } from './vault.ts';
import type { KnownKey } from './views.ts';

export { OWNERS_CHANNEL } from './owners-store.ts';

/** What other processes tell of owners; the channel is {@link OWNERS_CHANNEL}. */
export type OwnerNotices = Pick<Notifications, 'isHeard' | 'onNotice' | 'onGap'>;

export interface KeyReaderDeps {
  database: Database;
  vault: Pick<Vault, 'findRecord'>;
  providers: readonly Provider[];
  notices: OwnerNotices;
  log: Log;
}

/** All that lies where an owner's keys lie, still sealed. */
export interface OwnedKeys {
  /** By provider, then creation. */
  keys: readonly KnownKey[];
  /** Ids of providers under which something lies that is no key of ours, e.g. edited by hand. */
  damaged: ReadonlySet<string>;
}

/**
 * Reads what an owner has: the sealed keys from the vault, what is known of them from the database.
 * All throw AppError `keycloak_unavailable`, `database_unavailable` (503); `key_undecryptable` (424) when a
 * record that is known to exist is not found, or does not name its owner.
 */
export interface KeyReader extends Pick<PoolCache<OwnedKeys>, 'forget' | 'forgetRecord' | 'isNews'> {
  /** Keys and facts as they are now. By provider, then creation. */
  readKeys(owner: Owner): Promise<readonly KnownKey[]>;
  /**
   * For the hot path: as remembered. A change through any process is seen within 1 s, at once in this one; an
   * administrator's within 10 s.
   */
  readPools(owner: Owner): Promise<OwnedKeys>;
}

export function createKeyReader(deps: KeyReaderDeps): KeyReader {
  const { database, vault, notices, log } = deps;

  async function findRecord(owner: Owner, knownId: string | null): Promise<VaultRecord | undefined> {
    const record = await vault.findRecord(owner, knownId);
    if (isMissing(record, knownId)) throw missing(owner, knownId, log);
    if (record !== undefined && record.id !== knownId && record.values.size > 0) {
      // Only where there is something to find again: a person who is their own record has one without keys.
      await database.withOwner(owner, (sql) => rememberVaultId(sql, owner, record.id));
    }
    return record;
  }

  async function read(owner: Owner): Promise<Reading<OwnedKeys>> {
    const { before, facts } = await database.withOwner(owner, async (sql) => ({
      before: await readOwner(sql, owner),
      facts: await listFacts(sql, owner),
    }));
    const record = await findRecord(owner, before.vaultId);
    // A write that began while the vault was read has raised it: what was read may be of before.
    const after = await database.withOwner(owner, (sql) => readOwner(sql, owner));
    return {
      value: ownedKeys(deps, owner, record, facts),
      recordId: record?.id ?? null,
      isSettled: after.generation === before.generation && !before.isBeingWritten && !after.isBeingWritten,
    };
  }

  const cache = createPoolCache({ read, isHeard: () => notices.isHeard() });
  notices.onNotice((owner) => {
    cache.forget(owner as Owner);
  });
  notices.onGap(() => {
    cache.forgetAll();
  });

  return {
    readKeys: async (owner) => (await read(owner)).value.keys,
    readPools: (owner) => cache.get(owner),
    forget: (owner) => {
      cache.forget(owner);
    },
    forgetRecord: (recordId) => {
      cache.forgetRecord(recordId);
    },
    isNews: (owner, note, withinMs) => cache.isNews(owner, note, withinMs),
  };
}

function ownedKeys(
  { providers, log }: KeyReaderDeps,
  owner: Owner,
  record: VaultRecord | undefined,
  facts: ReadonlyMap<string, KeyFacts>,
): OwnedKeys {
  const damaged = new Set<string>();
  const keys = providers.flatMap((provider) => {
    const pool = readPool(record?.values.get(provider.id) ?? []);
    if (pool.foreign.length > 0) {
      damaged.add(provider.id);
      log.warn({ owner, provider: provider.id, values: pool.foreign.length }, 'values that are no keys');
    }
    return pool.keys.map((stored) => ({
      provider,
      stored,
      facts: facts.get(factsName(provider.id, stored.id)) ?? NO_FACTS,
    }));
  });
  return { keys, damaged };
}

/** Also when another, empty record has taken its name: nobody has said that the keys are to go. */
function isMissing(record: VaultRecord | undefined, knownId: string | null): boolean {
  if (knownId === null) return false;
  return record === undefined || (record.id !== knownId && record.values.size === 0);
}

/**
 * Not "no keys": the system would silently pay for somebody whose record was lost, or is looked for in the wrong
 * place. That an administrator deleted it is said by the event alone.
 */
function missing(owner: Owner, vaultId: string | null, log: Log): AppError {
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
