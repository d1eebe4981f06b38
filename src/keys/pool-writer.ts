import { setTimeout as delay } from 'node:timers/promises';
import { writeAuditEvent, type AuditAction } from '../audit/service.ts';
import { markCreated } from '../idempotency/service.ts';
import type { Sql } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import type { Owner } from '../lib/owner.ts';
import { writeStatusChange, type KeyStatusChange } from './key-status-store.ts';
import { keysBusy, type HeldOwnerLock, type OwnerLock } from './owner-lock.ts';
import type { PoolReader } from './pool-reader.ts';
import { parsePool, type StoredPool } from './stored-key.ts';
import { beginVaultWrite, endVaultWrite, readVaultIndex, writeVaultId } from './vault-index-store.ts';
import type { Vault, VaultRecord } from './vault.ts';

export interface PoolWriterDeps {
  vault: Vault;
  lock: OwnerLock;
  /** The cache of this process; absent in a process that only writes. */
  reader?: Pick<PoolReader, 'invalidate'>;
  log: Log;
}

/** One change to the keys of one owner and provider. */
export interface PoolChange {
  owner: Owner;
  ownerName: string;
  provider: string;
  /** For the audit trail; by default the owner. */
  actor?: string;
  requestId: string;
  action: KeyAction;
}

export interface PoolWrite {
  /** All values of the provider, in any order. */
  values: readonly string[];
  /** The changed keys, for the audit trail. */
  keyIds: readonly string[];
  /** Stored in the transaction that ends a successful write. */
  status?: KeyStatusChange;
}

/** The audit actions of key writes. */
type KeyAction = keyof typeof UNCONFIRMED_ACTIONS;

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

/**
 * Reads a provider's pool from the vault, without the cache.
 * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503).
 */
export function readStoredPool(
  deps: Pick<PoolWriterDeps, 'vault' | 'lock'>,
  owner: Owner,
  provider: string,
): Promise<StoredPool> {
  return deps.lock.runExclusive(owner, async (held) =>
    toPool(await findRecord(deps.vault, held, owner), provider),
  );
}

/**
 * Changes a pool under the owner's lock: reads it, computes and writes the new values, and reads them back.
 * @param edit computes the new values, again from what is stored then when a write was overwritten; it receives the
 *   overwritten one. It returns undefined when there is nothing to change, and throws to refuse the change.
 * @returns the edit that is stored.
 * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503), or what `edit` throws.
 */
export function changePool<Edit extends PoolWrite | undefined>(
  deps: PoolWriterDeps,
  change: PoolChange,
  edit: (pool: StoredPool, overwritten: Edit | undefined) => Edit,
): Promise<Edit> {
  const { owner, provider } = change;
  return deps.lock.runExclusive(owner, async (held) => {
    const audited = new Set<string>();
    let overwritten: Edit | undefined;
    try {
      for (let count = 1; count <= MAX_ATTEMPTS && Date.now() < held.deadlineMs; count += 1) {
        const found = await findRecord(deps.vault, held, owner);
        const edited = edit(toPool(found, provider), overwritten);
        if (edited === undefined || (await writeOnce(deps, held, change, found, edited, audited)))
          return edited;
        overwritten = edited;
        deps.log.warn({ owner, provider, attempt: count }, 'key write was overwritten; retrying');
        await delay(RETRY_DELAY_MS * count);
      }
      throw keysBusy();
    } catch (error) {
      await auditUnconfirmed(held, change, audited).catch((failure: unknown) => {
        deps.log.error({ err: failure, owner }, 'an audit row could not be written');
      });
      throw error;
    }
  });
}

async function findRecord(vault: Vault, held: HeldOwnerLock, owner: Owner): Promise<VaultRecord | undefined> {
  const { vaultId } = await held.connection.withOwner(owner, (sql) => readVaultIndex(sql, owner));
  return vault.writableUntil(held.deadlineMs).findRecord(owner, vaultId);
}

function toPool(record: VaultRecord | undefined, provider: string): StoredPool {
  return parsePool(record?.values.get(provider) ?? []);
}

/**
 * Invalidates the caches of all processes before and after the write, also when it fails.
 * @param found the record that the values were computed from.
 * @param audited the keys whose change has an audit row.
 * @returns false when what was written cannot be read back.
 */
async function writeOnce(
  { vault, reader }: PoolWriterDeps,
  held: HeldOwnerLock,
  change: PoolChange,
  found: VaultRecord | undefined,
  { values, keyIds, status }: PoolWrite,
  audited: Set<string>,
): Promise<boolean> {
  const { owner, ownerName, provider } = change;
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
    const record = found ?? (await writable.createRecord(owner, ownerName));
    await held.connection.withOwner(owner, (sql) => writeVaultId(sql, owner, record.id));
    isStored = await writable.writeValues(owner, record, { provider, values, ownerName, onCollision });
  } finally {
    await held.connection
      .withOwner(owner, async (sql) => {
        if (isStored && status) await writeStatusChange(sql, owner, provider, keyIds, status);
        // Also of a removal: a repeated request must not create a removed key again.
        if (isStored) await markCreated(sql, owner, keyIds);
        if (hasCollided) await auditAll(sql, change, keyIds, 'key.write_collided');
        await endVaultWrite(sql, owner);
      })
      .finally(() => {
        // After the response, requests to this process read the new keys at once.
        reader?.invalidate(owner);
      });
  }
  return isStored;
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
  const { owner, actor = owner, requestId, provider } = change;
  return { owner, actor, action, object: `key:${provider}/${keyId}`, requestId };
}
