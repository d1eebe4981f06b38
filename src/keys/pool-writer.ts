import { setTimeout as pause } from 'node:timers/promises';
import { recordAudit, type AuditAction } from '../audit/service.ts';
import type { Sql } from '../lib/database.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';
import type { KeyReader } from './key-reader.ts';
import { busy, type Hold, type OwnerLock } from './owner-lock.ts';
import { beginWrite, endWrite, readOwner, rememberVaultId } from './owners-store.ts';
import { readPool, type StoredPool } from './record.ts';
import type { Vault, VaultRecord } from './vault.ts';

export interface PoolWriterDeps {
  vault: Vault;
  lock: OwnerLock;
  /** What this process remembers; one that only writes remembers nothing. */
  reader?: Pick<KeyReader, 'forget'>;
  log: Log;
}

/** One change to the keys of one owner and provider. */
interface PoolChange {
  owner: Owner;
  ownerName: string;
  provider: string;
  /** Who asks, for the audit trail. */
  actor: string;
  requestId: string;
  action: KeyChange;
  /**
   * What is to be stored, from what is there. Asked anew on every attempt; throws to refuse the change,
   * and nothing has then been written.
   */
  plan(pool: StoredPool): PoolPlan;
  /** Facts that go with the change, in the transaction that ends it; not asked when the change did not hold. */
  settle?(sql: Sql, keyIds: readonly string[]): Promise<void>;
}

export interface PoolPlan {
  /** All values of the provider, in any order. */
  values: readonly string[];
  /** The keys that the change is about, for the audit trail. */
  keyIds: readonly string[];
}

/** What can happen to a stored key. */
type KeyChange = keyof typeof UNCONFIRMED;

export interface PoolWriter {
  /**
   * What is stored of a provider right now, past everything that is remembered.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  readPool(owner: Owner, provider: string): Promise<StoredPool>;
  /**
   * Carries the change out under the owner's lock and reads it back.
   * @returns the ids of the keys that were changed.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503), or what `plan` throws.
   */
  write(change: PoolChange): Promise<readonly string[]>;
}

const MAX_ATTEMPTS = 5;
const PAUSE_MS = 50;
/** What the trail says when a change that it announced could not be read back: it may have happened. */
const UNCONFIRMED = {
  'key.added': 'key.add_unconfirmed',
  'key.replaced': 'key.replace_unconfirmed',
  'key.updated': 'key.update_unconfirmed',
  'key.deleted': 'key.delete_unconfirmed',
  'key.resealed': 'key.reseal_unconfirmed',
  'key.imported': 'key.import_unconfirmed',
} satisfies Partial<Record<AuditAction, AuditAction>>;

export function createPoolWriter({ vault, lock, reader, log }: PoolWriterDeps): PoolWriter {
  async function findRecord(hold: Hold, owner: Owner): Promise<VaultRecord | undefined> {
    const { vaultId } = await hold.connection.withOwner(owner, (sql) => readOwner(sql, owner));
    return vault.until(hold.deadlineMs).findRecord(owner, vaultId);
  }

  /** Says before and after the write that what others remember is old, whatever becomes of it. */
  async function attempt(hold: Hold, change: PoolChange, told: Set<string>): Promise<Attempt> {
    const { owner, provider } = change;
    const found = await findRecord(hold, owner);
    const { values, keyIds } = change.plan(readPool(found?.values.get(provider) ?? []));
    await hold.connection.withOwner(owner, async (sql) => {
      await beginWrite(sql, owner);
      await announce(sql, change, keyIds, told);
    });
    let isKept = false;
    let hasCollided = false;
    const whenCollided = () => {
      hasCollided = true;
    };
    try {
      const writable = vault.until(hold.deadlineMs);
      const record = found ?? (await writable.createRecord(owner, change.ownerName));
      await hold.connection.withOwner(owner, (sql) => rememberVaultId(sql, owner, record.id));
      const { ownerName } = change;
      isKept = await writable.writeValues(owner, record, { provider, values, ownerName, whenCollided });
    } finally {
      await hold.connection
        .withOwner(owner, async (sql) => {
          if (isKept) await change.settle?.(sql, keyIds);
          if (hasCollided) await tellAll(sql, change, keyIds, 'key.write_collided');
          await endWrite(sql, owner);
        })
        .finally(() => {
          // Who was answered reads what was written, here at once.
          reader?.forget(owner);
        });
    }
    return { isKept, keyIds };
  }

  async function insist(hold: Hold, change: PoolChange, told: Set<string>): Promise<readonly string[]> {
    for (let count = 1; count <= MAX_ATTEMPTS && Date.now() < hold.deadlineMs; count += 1) {
      const { isKept, keyIds } = await attempt(hold, change, told);
      if (isKept) return keyIds;
      log.warn(
        { owner: change.owner, provider: change.provider, attempt: count },
        'a key write did not hold',
      );
      await pause(PAUSE_MS * count);
    }
    throw busy();
  }

  return {
    readPool: (owner, provider) =>
      lock.hold(owner, async (hold) => {
        const record = await findRecord(hold, owner);
        return readPool(record?.values.get(provider) ?? []);
      }),

    write: (change) =>
      lock.hold(change.owner, async (hold) => {
        const told = new Set<string>();
        try {
          return await insist(hold, change, told);
        } catch (error) {
          await tellUnconfirmed(hold, change, told).catch((failure: unknown) => {
            log.error({ err: failure, owner: change.owner }, 'an audit row could not be written');
          });
          throw error;
        }
      }),
  };
}

interface Attempt {
  isKept: boolean;
  keyIds: readonly string[];
}

/** Writes the audit rows before the change, once per key. */
async function announce(
  sql: Sql,
  change: PoolChange,
  keyIds: readonly string[],
  told: Set<string>,
): Promise<void> {
  for (const keyId of keyIds) {
    if (told.has(keyId)) continue;
    await recordAudit(sql, eventOf(change, keyId, change.action));
    told.add(keyId);
  }
}

async function tellUnconfirmed(hold: Hold, change: PoolChange, told: ReadonlySet<string>): Promise<void> {
  if (told.size === 0) return;
  await hold.connection.withOwner(change.owner, (sql) =>
    tellAll(sql, change, told, UNCONFIRMED[change.action]),
  );
}

async function tellAll(
  sql: Sql,
  change: PoolChange,
  keyIds: Iterable<string>,
  action: AuditAction,
): Promise<void> {
  for (const keyId of keyIds) await recordAudit(sql, eventOf(change, keyId, action));
}

function eventOf(change: PoolChange, keyId: string, action: AuditAction) {
  const { owner, actor, requestId, provider } = change;
  return { owner, actor, action, object: `key:${provider}/${keyId}`, requestId };
}
