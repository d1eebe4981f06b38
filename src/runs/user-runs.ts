import { toPage } from '../http/page.ts';
import type { Caller } from '../http/principal.ts';
import { notFound } from '../lib/errors.ts';
import { getUserId, userOwner } from '../lib/owner.ts';
import { writeAuditEvent } from '../audit/service.ts';
import type { ServerOpener } from '../servers/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import type { RunDetails, RunPage, RunsQuery, RunView } from './schema.ts';
import { type RunRef, type RunEncryption } from './run-encryption.ts';

export interface UserRunsDeps {
  database: Database;
  store: RunsStore;
  encryption: RunEncryption;
  dispatcher: Pick<Dispatcher, 'find'>;
  servers: Pick<ServerOpener, 'listTokenServerIds'>;
}

/** The state of a run that decides how its events are read. */
export interface RunProgress extends RunRef {
  status: RunView['status'];
  /** Number of the last event; null while the run is active in this process. */
  lastSeq: number | null;
  cause: RunView['cause'];
}

/**
 * Reads and cancels a user's own runs. With a token, only those on servers whose owner allows runs by tokens: to a token
 * the others do not exist.
 */
export interface UserRuns {
  /** @throws AppError `not_found` (404), also for another user's run. */
  get(caller: Caller, id: string): Promise<RunDetails>;
  list(caller: Caller, query: RunsQuery): Promise<RunPage>;
  /** @throws AppError `not_found` (404). */
  getProgress(caller: Caller, id: string): Promise<RunProgress>;
  /**
   * Cancels a run in whichever process it is; a finished run does not change. Writes the audit row `run.cancelled`.
   * @param reason `viewer_left` is named in the history.
   * @throws AppError `not_found` (404).
   */
  cancel(caller: Caller, id: string, requestId: string, reason?: 'requested' | 'viewer_left'): Promise<void>;
}

export function createUserRuns({ database, store, encryption, dispatcher, servers }: UserRunsDeps): UserRuns {
  /** Null for all servers. */
  const listVisibleServers = async ({ user, token }: Caller) =>
    token === null ? null : servers.listTokenServerIds(user.id);

  /** The reference of a run, which a token may see. */
  async function findVisible(caller: Caller, id: string): Promise<RunRef> {
    const run = { id, owner: userOwner(caller.user.id) };
    const serverIds = await listVisibleServers(caller);
    if (serverIds === null) return run;
    const row = await store.findRun(run);
    return row !== undefined && serverIds.has(row.server_id) ? run : throwNotFound();
  }

  return {
    async get(caller, id) {
      const run = await findVisible(caller, id);
      const row = (await store.findRunWithProgram(run)) ?? throwNotFound();
      return { ...toRunView(row), program: encryption.decryptProgram(run, row.sealed) ?? null };
    },
    async list(caller, query) {
      const rows = await store.listRuns(userOwner(caller.user.id), query, await listVisibleServers(caller));
      return toPage(rows, query.limit, ({ number }) => number, toRunView);
    },
    async getProgress(caller, id) {
      const run = await findVisible(caller, id);
      if (dispatcher.find(run) !== undefined)
        return { ...run, status: 'running', lastSeq: null, cause: null };
      const row = (await store.findRun(run)) ?? throwNotFound();
      return { ...run, status: row.status, lastSeq: row.last_seq, cause: row.cause };
    },
    async cancel(caller, id, requestId, reason = 'requested') {
      const run = await findVisible(caller, id);
      try {
        await database.withOwner(run.owner, async (sql) => {
          const isRequested = await store.requestCancel(sql, id);
          if (!isRequested && !(await store.hasRun(sql, id))) throwNotFound();
          const event = { owner: run.owner, actor: run.owner, object: `run:${id}`, requestId };
          if (isRequested) await writeAuditEvent(sql, { ...event, action: 'run.cancelled' });
        });
      } finally {
        // Does not wait for the notification, and works without the database.
        dispatcher.find(run)?.stop(reason);
      }
    },
  };
}

function throwNotFound(): never {
  throw notFound('This run');
}

function toRunView(row: RunRow): RunView {
  const {
    number: _number,
    owner,
    sealed: _sealed,
    last_seq: _seq,
    cancel_requested: _cancel,
    ...shown
  } = row;
  return {
    ...shown,
    ...(row.status !== 'finished' && { stdout_bytes: null, stderr_bytes: null }),
    user_id: getUserId(owner),
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
    finished_at: row.finished_at?.toISOString() ?? null,
  };
}
