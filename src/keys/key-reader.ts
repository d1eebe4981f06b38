import type { Database } from '../lib/database.ts';
import type { Log } from '../lib/log.ts';
import type { Provider } from '../providers/provider.ts';
import { factsName, listFacts, NO_FACTS } from './facts-store.ts';
import { readOwner, rememberVaultId } from './owners-store.ts';
import { readPool, type Owner } from './record.ts';
import type { Vault, VaultRecord } from './vault.ts';
import type { KnownKey } from './views.ts';

export interface KeyReaderDeps {
  database: Database;
  vault: Vault;
  providers: readonly Provider[];
  log: Log;
}

/** Reads what an owner has: the sealed keys from the vault, what is known of them from the database. */
export interface KeyReader {
  /**
   * By provider, then creation. An owner whose record is not found has no keys; nothing is forgotten by
   * that, so that they are back when the record is.
   */
  readKeys(owner: Owner): Promise<KnownKey[]>;
  /** Also the ids of providers under which something lies that is no key of ours, e.g. edited by hand. */
  readPools(owner: Owner): Promise<{ keys: KnownKey[]; damaged: ReadonlySet<string> }>;
}

export function createKeyReader({ database, vault, providers, log }: KeyReaderDeps): KeyReader {
  async function findRecord(owner: Owner, vaultId: string | null): Promise<VaultRecord | undefined> {
    const record = await vault.findRecord(owner, vaultId);
    if (record === undefined) {
      if (vaultId !== null) log.warn({ owner, vault_id: vaultId }, 'a known vault record was not found');
    } else if (record.id !== vaultId && record.values.size > 0) {
      // Only where there is something to find again: a person who is their own record has one without keys.
      await database.withOwner(owner, (sql) => rememberVaultId(sql, owner, record.id));
    }
    return record;
  }

  async function readPools(owner: Owner): Promise<{ keys: KnownKey[]; damaged: ReadonlySet<string> }> {
    const { vaultId, facts } = await database.withOwner(owner, async (sql) => ({
      vaultId: (await readOwner(sql, owner)).vaultId,
      facts: await listFacts(sql, owner),
    }));
    const record = await findRecord(owner, vaultId);
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

  return { readPools, readKeys: async (owner) => (await readPools(owner)).keys };
}
