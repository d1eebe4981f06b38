import { z } from 'zod';
import type { AuditAction } from '../audit/service.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';
import type { Language, ServerType } from '../runners/runner.ts';

/** What processes tell each other of runs. */
export const RUNS_CHANNEL = 'ops_center_runs';

/** How many runs may go on at once, of one user and on one server, in all processes together. */
export interface RunConcurrencyLimits {
  perUser: number;
  perServer: number;
}

export interface NewRun {
  id: string;
  owner: Owner;
  serverId: string;
  serverName: string;
  serverType: ServerType;
  /** Of the server and of those that it goes through. */
  serverVersions: readonly number[];
  language: Language | null;
  codeSha256: string;
  sealed: string;
}

/** What became of a run that was handed in; `place` in the queue, from 1. */
export type Submission = { outcome: 'running' } | { outcome: 'full' } | { outcome: 'queued'; place: number };

export interface QueueOptions {
  /** This process, for as long as it lives. */
  instance: string;
  leaseMs: number;
  limits: RunConcurrencyLimits;
  mostQueued: number;
}

const SubmittedRow = z.object({
  outcome: z.enum(['running', 'queued', 'full']),
  place: z.number().nullable(),
});
const RunRefRow = z.object({ id: z.string(), owner: OwnerText });
const RenewedRow = z.object({ id: z.string(), cancel_requested: z.boolean() });
const PositionRow = z.object({ id: z.string(), place: z.number() });

/** SQL on the queue, across owners; every call is one round trip. */
export function createQueueStore(
  database: Database,
  { instance, leaseMs, limits, mostQueued }: QueueOptions,
) {
  const lease = `${leaseMs} milliseconds`;
  return {
    /**
     * Stores a run and starts it, or queues it.
     * @param mayStart whether this process has room for it.
     */
    async submit(run: NewRun, mayStart: boolean, requestId: string): Promise<Submission> {
      const action: AuditAction = 'run.started';
      const [row] = await database.rows(
        SubmittedRow,
        'SELECT outcome, place FROM submit_run($1, $2, $3, $4, $5, $6, $7, $8, $9)',
        [
          JSON.stringify({
            id: run.id,
            owner: run.owner,
            server_id: run.serverId,
            server_name: run.serverName,
            server_type: run.serverType,
            server_versions: run.serverVersions,
            language: run.language,
            code_sha256: run.codeSha256,
            sealed: run.sealed,
          }),
          mayStart,
          limits.perUser,
          limits.perServer,
          mostQueued,
          instance,
          lease,
          action,
          requestId,
        ],
      );
      const { outcome, place } = row ?? { outcome: 'full', place: null };
      return outcome === 'queued' ? { outcome, place: place ?? 1 } : { outcome };
    },

    /** Starts up to `most` queued runs of this process, and with `orphans` those whose process gives no sign of life. */
    claim: (most: number, includeOrphans: boolean) =>
      database.rows(RunRefRow, 'SELECT id, owner FROM claim_runs($1, $2, $3, $4, $5, $6)', [
        instance,
        includeOrphans,
        most,
        limits.perUser,
        limits.perServer,
        lease,
      ]),

    /** A sign of life. @returns those that are still this process's, and whether each is to be cancelled. */
    async renew(ids: readonly string[]): Promise<ReadonlyMap<string, boolean>> {
      const rows = await database.rows(
        RenewedRow,
        'SELECT id, cancel_requested FROM renew_runs($1, $2, $3)',
        [instance, ids, lease],
      );
      return new Map(rows.map((row) => [row.id, row.cancel_requested]));
    },

    /** Takes over up to `most` runs that were under way in a process that gives no sign of life. */
    takeOrphans: (most: number) =>
      database.rows(RunRefRow, 'SELECT id, owner FROM take_lost_runs($1, $2, $3)', [instance, most, lease]),

    /** Where the queued runs of this process stand, from 1. */
    async listPositions(): Promise<ReadonlyMap<string, number>> {
      const rows = await database.rows(PositionRow, 'SELECT id, place FROM run_places($1)', [instance]);
      return new Map(rows.map((row) => [row.id, row.place]));
    },

    /** Leaves the queued runs of this process to others. */
    async release(): Promise<void> {
      await database.run('SELECT release_runs($1)', [instance]);
      await notifyRuns(database, 'released');
    },

    async prune(days: number): Promise<void> {
      await database.run('SELECT prune_runs($1)', [days]);
    },
  };
}

/** Tells all processes something of runs. */
export async function notifyRuns(sql: Sql, payload: string): Promise<void> {
  await sql.run('SELECT pg_notify($1, $2)', [RUNS_CHANNEL, payload]);
}
