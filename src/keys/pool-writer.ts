import { setTimeout as pause } from 'node:timers/promises';
import { writeAuditEvent, type AuditAction } from '../audit/service.ts';
import type { Sql } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';
import type { KeyReader } from './key-reader.ts';
import { keysBusy, type HeldOwnerLock, type OwnerLock } from './owner-lock.ts';
import { beginVaultWrite, endVaultWrite, readVaultIndex, writeVaultId } from './vault-index-store.ts';
import { parsePool, type StoredPool } from './stored-key.ts';
import type { Vault, VaultRecord } from './vault.ts';

export interface PoolWriterDeps {
  vault: Vault;
  lock: OwnerLock;
  /** What this process remembers; one that only writes remembers nothing. */
  reader?: Pick<KeyReader, 'invalidate'>;
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
  action: KeyAction;
  /**
   * What is to be stored, from what is there. Asked anew on every attempt; throws to refuse the change,
   * and nothing has then been written.
   */
  plan(pool: StoredPool): PlannedWrite;
  /** Facts that go with the change, in the transaction that ends it; not asked when the change did not hold. */
  writeStatus?(sql: Sql, keyIds: readonly string[]): Promise<void>;
}

export interface PlannedWrite {
  /** All values of the provider, in any order. */
  values: readonly string[];
  /** The keys that the change is about, for the audit trail. */
  keyIds: readonly string[];
}

/** What can happen to a stored key. */
type KeyAction = keyof typeof UNCONFIRMED_ACTIONS;

export interface PoolWriter {
  /**
   * What is stored of a provider right now, past everything that is remembered.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  readStoredPool(owner: Owner, provider: string): Promise<StoredPool>;
  /**
   * Carries the change out under the owner's lock and reads it back.
   * @returns the ids of the keys that were changed.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503), or what `plan` throws.
   */
  write(change: PoolChange): Promise<readonly string[]>;
}

const MAX_ATTEMPTS = 5;
const RETRY_DELAY_MS = 50;
/** What the trail says when a change that it announced could not be read back: it may have happened. */
const UNCONFIRMED_ACTIONS = {
  'key.added': 'key.add_unconfirmed',
  'key.replaced': 'key.replace_unconfirmed',
  'key.updated': 'key.update_unconfirmed',
  'key.deleted': 'key.delete_unconfirmed',
  'key.resealed': 'key.reseal_unconfirmed',
  'key.imported': 'key.import_unconfirmed',
} satisfies Partial<Record<AuditAction, AuditAction>>;

export function createPoolWriter({ vault, lock, reader, log }: PoolWriterDeps): PoolWriter {
  async function findRecord(held: HeldOwnerLock, owner: Owner): Promise<VaultRecord | undefined> {
    const { vaultId } = await held.connection.withOwner(owner, (sql) => readVaultIndex(sql, owner));
    return vault.writableUntil(held.deadlineMs).findRecord(owner, vaultId);
  }

  /** Says before and after the write that what others remember is old, whatever becomes of it. */
  async function attempt(
    held: HeldOwnerLock,
    change: PoolChange,
    audited: Set<string>,
  ): Promise<WriteResult> {
    const { owner, provider } = change;
    const found = await findRecord(held, owner);
    const { values, keyIds } = change.plan(parsePool(found?.values.get(provider) ?? []));
    await held.connection.withOwner(owner, async (sql) => {
      await beginVaultWrite(sql, owner);
      await auditOnce(sql, change, keyIds, audited);
    });
    let isStored = false;
    let hasCollided = false;
    const whenCollided = () => {
      hasCollided = true;
    };
    try {
      const writable = vault.writableUntil(held.deadlineMs);
      const record = found ?? (await writable.createRecord(owner, change.ownerName));
      await held.connection.withOwner(owner, (sql) => writeVaultId(sql, owner, record.id));
      const { ownerName } = change;
      isStored = await writable.writeValues(owner, record, {
        provider,
        values,
        ownerName,
        onCollision: whenCollided,
      });
    } finally {
      await held.connection
        .withOwner(owner, async (sql) => {
          if (isStored) await change.writeStatus?.(sql, keyIds);
          if (hasCollided) await auditAll(sql, change, keyIds, 'key.write_collided');
          await endVaultWrite(sql, owner);
        })
        .finally(() => {
          // Who was answered reads what was written, here at once.
          reader?.invalidate(owner);
        });
    }
    return { isStored, keyIds };
  }

  async function writeWithRetries(
    held: HeldOwnerLock,
    change: PoolChange,
    audited: Set<string>,
  ): Promise<readonly string[]> {
    for (let count = 1; count <= MAX_ATTEMPTS && Date.now() < held.deadlineMs; count += 1) {
      const { isStored: isKept, keyIds } = await attempt(held, change, audited);
      if (isKept) return keyIds;
      log.warn(
        { owner: change.owner, provider: change.provider, attempt: count },
        'a key write did not hold',
      );
      await pause(RETRY_DELAY_MS * count);
    }
    throw keysBusy();
  }

  return {
    readStoredPool: (owner, provider) =>
      lock.runExclusive(owner, async (hold) => {
        const record = await findRecord(hold, owner);
        return parsePool(record?.values.get(provider) ?? []);
      }),

    write: (change) =>
      lock.runExclusive(change.owner, async (hold) => {
        const told = new Set<string>();
        try {
          return await writeWithRetries(hold, change, told);
        } catch (error) {
          await auditUnconfirmed(hold, change, told).catch((failure: unknown) => {
            log.error({ err: failure, owner: change.owner }, 'an audit row could not be written');
          });
          throw error;
        }
      }),
  };
}

interface WriteResult {
  isStored: boolean;
  keyIds: readonly string[];
}

/** Writes the audit rows before the change, once per key. */
async function auditOnce(
  sql: Sql,
  change: PoolChange,
  keyIds: readonly string[],
  audited: Set<string>,
): Promise<void> {
  for (const keyId of keyIds) {
    if (audited.has(keyId)) continue;
    await writeAuditEvent(sql, toAuditEvent(change, keyId, change.action));
    audited.add(keyId);
  }
}

async function auditUnconfirmed(
  held: HeldOwnerLock,
  change: PoolChange,
  audited: ReadonlySet<string>,
): Promise<void> {
  if (audited.size === 0) return;
  await held.connection.withOwner(change.owner, (sql) =>
    auditAll(sql, change, audited, UNCONFIRMED_ACTIONS[change.action]),
  );
}

async function auditAll(
  sql: Sql,
  change: PoolChange,
  keyIds: Iterable<string>,
  action: AuditAction,
): Promise<void> {
  for (const keyId of keyIds) await writeAuditEvent(sql, toAuditEvent(change, keyId, action));
}

function toAuditEvent(change: PoolChange, keyId: string, action: AuditAction) {
  const { owner, actor, requestId, provider } = change;
  return { owner, actor, action, object: `key:${provider}/${keyId}`, requestId };
}
