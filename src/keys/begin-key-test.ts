import { writeAuditEvent } from '../audit/service.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';

/**
 * Counts one use of the limit of key tests, then writes the test to the audit trail. So a test that makes no call counts
 * too, and the rows of a user are limited. `CallProvider` counts what follows the first call.
 * @throws AppError `rate_limited` (429), with nothing written; `database_unavailable` (503).
 */
export async function beginKeyTest(
  { keyTestLimit, database }: Pick<KeyDeps, 'keyTestLimit' | 'database'>,
  userId: string,
  key: { provider: string; id: string },
  requestId: string,
): Promise<void> {
  await keyTestLimit.consume(userId);
  const owner = userOwner(userId);
  const object = `key:${key.provider}/${key.id}`;
  await database.withOwner(owner, (sql) =>
    writeAuditEvent(sql, { owner, actor: owner, action: 'key.tested', object, requestId }),
  );
}
