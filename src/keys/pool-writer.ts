import { setTimeout as delay } from 'node:timers/promises';
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
  /** The cache of this process; absent in a process that only writes. */
  reader?: Pick<KeyReader, 'invalidate'>;
  log: Log;
}

/** One change to the keys of one owner and provider. */
interface PoolChange {
  owner: Owner;
  ownerName: string;
  provider: string;
  /** For the audit trail. */
  actor: string;
  requestId: string;
  action: KeyAction;
  /**
   * Computes what to store from what is stored. Called on every attempt. It throws to refuse the change; nothing has
   * been written then.
   */
  plan(pool: StoredPool): PlannedWrite;
  /** Writes key status in the transaction that ends a successful write. Not called when the write was overwritten. */
  writeStatus?(sql: Sql, keyIds: readonly string[]): Promise<void>;
}

export interface PlannedWrite {
  /** All values of the provider, in any order. */
  values: readonly string[];
  /** The changed keys, for the audit trail. */
  keyIds: readonly string[];
}

/** The audit actions of key writes. */
type KeyAction = keyof typeof UNCONFIRMED_ACTIONS;

export interface PoolWriter {
  /**
   * Reads a provider's pool from the vault, without the cache.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503).
   */
  readStoredPool(owner: Owner, provider: string): Promise<StoredPool>;
  /**
   * Writes the change under the owner's lock and reads it back.
   * @returns the ids of the changed keys.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503), or what `plan` throws.
   */
  write(change: PoolChange): Promise<readonly string[]>;
}

const MAX_ATTEMPTS = 5;
const RETRY_DELAY_MS = 50;
/** The audit action for a change that was announced and could not be read back: it may or may not be stored. */
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

  /** Invalidates the caches of all processes before and after the write, also when it fails. */
  async function writeOnce(
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
    const onCollision = () => {
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
        onCollision,
      });
    } finally {
      await held.connection
        .withOwner(owner, async (sql) => {
          if (isStored) await change.writeStatus?.(sql, keyIds);
          if (hasCollided) await auditAll(sql, change, keyIds, 'key.write_collided');
          await endVaultWrite(sql, owner);
        })
        .finally(() => {
          // After the answer, requests to this process read the new keys at once.
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
      const { isStored, keyIds } = await writeOnce(held, change, audited);
      if (isStored) return keyIds;
      log.warn(
        { owner: change.owner, provider: change.provider, attempt: count },
        'key write was overwritten; retrying',
      );
      await delay(RETRY_DELAY_MS * count);
    }
    throw keysBusy();
  }

  return {
    readStoredPool: (owner, provider) =>
      lock.runExclusive(owner, async (held) => {
        const record = await findRecord(held, owner);
        return parsePool(record?.values.get(provider) ?? []);
      }),

    write: (change) =>
      lock.runExclusive(change.owner, async (held) => {
        const audited = new Set<string>();
        try {
          return await writeWithRetries(held, change, audited);
        } catch (error) {
          await auditUnconfirmed(held, change, audited).catch((failure: unknown) => {
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

/** Audits the change before it is written, once per key. */
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
