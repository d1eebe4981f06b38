import { writeAuditEvent } from '../audit/service.ts';
import type { User } from '../http/principal.ts';
import { notFound } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { RunsStore } from './runs-store.ts';

export interface CancelRunDeps {
  database: Database;
  store: RunsStore;
  dispatcher: Pick<Dispatcher, 'find'>;
}

/**
 * Cancels a user's run in whichever process it is; a finished run does not change. Writes the audit row
 * `run.cancelled`.
 * @param reason `viewer_left` is named in the history.
 * @throws AppError `not_found` (404).
 */
export type CancelRun = (
  user: User,
  id: string,
  requestId: string,
  reason?: 'requested' | 'viewer_left',
) => Promise<void>;

export function createCancelRun({ database, store, dispatcher }: CancelRunDeps): CancelRun {
  return async (user, id, requestId, reason = 'requested') => {
    const run = { id, owner: userOwner(user.id) };
    try {
      await database.withOwner(run.owner, async (sql) => {
        const isRequested = await store.requestCancel(sql, id);
        if (!isRequested && !(await store.hasRun(sql, id))) throw notFound('This run');
        const event = { owner: run.owner, actor: run.owner, object: `run:${id}`, requestId };
        if (isRequested) await writeAuditEvent(sql, { ...event, action: 'run.cancelled' });
      });
    } finally {
      // Does not wait for the notification, and works without the database.
      dispatcher.find(run)?.stop(reason);
    }
  };
}
