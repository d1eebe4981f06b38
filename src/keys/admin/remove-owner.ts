import { writeAuditEvent, type AuditAction } from '../../audit/service.ts';
import type { Sql } from '../../lib/postgres/database.ts';
import type { Owner } from '../../lib/owner.ts';
import type { OwnerLock } from '../owner-lock.ts';
import { beginVaultWrite, endVaultWrite, readVaultIndex } from '../vault-index-store.ts';
import type { Vault } from '../vault.ts';
import { clearOwnerRows } from './admin-store.ts';

export interface OwnerRemovalDeps {
  lock: OwnerLock;
  vault: Vault;
  /** True with one realm for users and keys: the record is the user, and is not deleted here. */
  recordIsUser: boolean;
}

/** `removed`: the vault record is deleted. `absent`: there was none. `kept`: the owner may not be removed. */
export type OwnerRemovalResult = 'removed' | 'absent' | 'kept';

/** Removes the keys of owners who were deleted in Keycloak. */
export interface OwnerRemoval {
  /**
   * Deletes the owner's vault record and the status of the keys, under the owner's lock. The audit trail stays and
   * gets a row.
   * @param actor for the audit trail.
   * @param mayRemove called under the lock, right before anything is written.
   * @throws AppError `busy`, `keycloak_unavailable`, `database_unavailable` (503); `key_undecryptable` when the
   *   record names another owner.
   */
  removeOwner(
    owner: Owner,
    requestId: string,
    actor: string,
    mayRemove?: () => Promise<boolean>,
  ): Promise<OwnerRemovalResult>;
}

export function createOwnerRemoval({ lock, vault, recordIsUser }: OwnerRemovalDeps): OwnerRemoval {
  return {
    removeOwner: (owner, requestId, actor, mayRemove) =>
      lock.runExclusive(owner, async ({ connection, deadlineMs }) => {
        if (mayRemove !== undefined && !(await mayRemove())) return 'kept';
        const { vaultId } = await connection.withOwner(owner, (sql) => readVaultIndex(sql, owner));
        const writable = vault.writableUntil(deadlineMs);
        const record = await writable.findRecord(owner, vaultId);
        // The user exists after all, and a user is never deleted here.
        if (recordIsUser && record !== undefined) return 'kept';
        if (record === undefined && vaultId === null) {
          // The record was deleted before the user: the status of its keys may still be stored.
          await connection.withOwner(owner, (sql) => clearOwnerRows(sql, owner));
          return 'absent';
        }
        const object = `vault:${record?.id ?? vaultId ?? 'none'}`;
        const audit = (sql: Sql, action: AuditAction) =>
          writeAuditEvent(sql, { owner, actor, action, object, requestId });
        await connection.withOwner(owner, async (sql) => {
          await beginVaultWrite(sql, owner);
          if (record !== undefined) await audit(sql, 'vault.purged');
        });
        let isGone = record === undefined;
        try {
          if (record !== undefined) await writable.deleteRecord(owner, record);
          isGone = true;
        } finally {
          await connection.withOwner(owner, async (sql) => {
            if (isGone) await clearOwnerRows(sql, owner);
            else await audit(sql, 'vault.purge_unconfirmed');
            await endVaultWrite(sql, owner);
          });
        }
        return record === undefined ? 'absent' : 'removed';
      }),
  };
}
