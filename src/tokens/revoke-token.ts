import { writeAuditEvent } from '../audit/service.ts';
import { notFound } from '../lib/errors.ts';
import { userOwner, type Owner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import { deleteToken, listTokens, lockTokens } from './tokens-store.ts';

/**
 * Deletes a token of a user. The table's trigger notifies all processes.
 * @throws AppError `not_found` (404), also for another user's token; `database_unavailable` (503).
 */
export async function revokeToken(
  database: Database,
  userId: string,
  id: string,
  requestId: string,
): Promise<void> {
  const owner = userOwner(userId);
  await database.withOwner(owner, async (sql) => {
    if (!(await deleteToken(sql, id))) throw notFound('This token');
    await writeAuditEvent(sql, {
      owner,
      actor: owner,
      action: 'token.revoked',
      object: `token:${id}`,
      requestId,
    });
  });
}

/**
 * Deletes all tokens of an owner who was deleted in Keycloak.
 * @param actor for the audit trail, which is kept.
 * @returns the ids of the deleted tokens.
 * @throws AppError `database_unavailable` (503).
 */
export async function revokeAllTokens(
  database: Database,
  owner: Owner,
  requestId: string,
  actor: string,
): Promise<string[]> {
  return database.withOwner(owner, async (sql) => {
    await lockTokens(sql, owner);
    const ids = (await listTokens(sql)).map(({ id }) => id);
    for (const id of ids) {
      await writeAuditEvent(sql, { owner, actor, action: 'token.revoked', object: `token:${id}`, requestId });
      await deleteToken(sql, id);
    }
    return ids;
  });
}
