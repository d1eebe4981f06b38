import { writeAuditEvent } from '../audit/service.ts';
import type { User } from '../http/principal.ts';
import type { Database } from '../lib/postgres/database.ts';
import { notFound } from '../lib/errors.ts';
import { getUserId, userOwner } from '../lib/owner.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import type { RunDetails, RunPage, RunsQuery, RunView } from './schema.ts';
import { type RunRef, type RunEncryption } from './run-encryption.ts';

export interface RunHistoryDeps {
  database: Database;
  store: RunsStore;
  seals: RunEncryption;
  dispatcher: Pick<Dispatcher, 'find'>;
}

/** A run as those who watch it need it. */
export interface RunProgress extends RunRef {
  status: RunView['status'];
  /** Of the last event, where the run is over. */
  lastSeq: number | null;
  cause: RunView['cause'];
}

/** What a person sees of their runs, and has ended. */
export interface RunHistory {
  /** @throws AppError `not_found` (404), also for another user's run. */
  get(user: User, id: string): Promise<RunDetails>;
  list(user: User, query: RunsQuery): Promise<RunPage>;
  /** @throws AppError `not_found` (404). */
  getProgress(user: User, id: string): Promise<RunProgress>;
  /**
   * Has a run ended, wherever it is; one that is over stays as it is.
   * @param reason the history names that nobody watched it any more.
   * @throws AppError `not_found` (404).
   */
  cancel(user: User, id: string, requestId: string, reason?: 'requested' | 'viewer_left'): Promise<void>;
}

export function createRunHistory({ database, store, seals, dispatcher }: RunHistoryDeps): RunHistory {
  return {
    async get(user, id) {
      const run = { id, owner: userOwner(user.id) };
      const row = (await store.findWhole(run)) ?? throwNotFound();
      return { ...toRunView(row), program: seals.decryptProgram(run, row.sealed) ?? null };
    },
    async list(user, query) {
      const rows = await store.listRuns(userOwner(user.id), query);
      const shown = rows.slice(0, query.limit);
      const next = rows.length > query.limit ? shown.at(-1)?.number : undefined;
      return { data: shown.map(toRunView), next_cursor: next ?? null };
    },
    async getProgress(user, id) {
      const run = { id, owner: userOwner(user.id) };
      if (dispatcher.find(run) !== undefined)
        return { ...run, status: 'running', lastSeq: null, cause: null };
      const row = (await store.findRun(run)) ?? throwNotFound();
      return { ...run, status: row.status, lastSeq: row.last_seq, cause: row.cause };
    },
    async cancel(user, id, requestId, reason = 'requested') {
      const run = { id, owner: userOwner(user.id) };
      try {
        await database.withOwner(run.owner, async (sql) => {
          const isAsked = await store.requestCancel(sql, id);
          if (!isAsked && !(await store.hasRun(sql, id))) throw notFound('This run');
          const event = { owner: run.owner, actor: run.owner, object: `run:${id}`, requestId };
          if (isAsked) await writeAuditEvent(sql, { ...event, action: 'run.cancelled' });
        });
      } finally {
        // At once, and also when the database is away.
        dispatcher.find(run)?.stop(reason);
      }
    },
  };
}

function throwNotFound(): never {
  throw notFound('This run');
}

function toRunView(row: RunRow): RunView {
  const { number: _number, owner, sealed: _sealed, last_seq: _seq, cancel_requested: _asked, ...shown } = row;
  return {
    ...shown,
    user_id: getUserId(owner),
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
    finished_at: row.finished_at?.toISOString() ?? null,
  };
}
