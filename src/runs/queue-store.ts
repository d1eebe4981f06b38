import { z } from 'zod';
import type { AuditAction } from '../audit/service.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';
import type { Language, ServerType } from '../runners/runner.ts';

/** NOTIFY channel of runs. Payloads: `cancel <id>`, `stored <id>`, `ended <id>`, `released`. */
export const RUNS_CHANNEL = 'ops_center_runs';

/** Maximum number of concurrent runs of one user and on one server, in all processes together. */
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
  /** Versions of the server and of its jump servers. */
  serverVersions: readonly number[];
  language: Language | null;
  codeSha256: string;
  ciphertext: string;
}

/** The outcome of submitting a run; `position` in the queue, from 1. */
export type Submission =
  { outcome: 'running' } | { outcome: 'full' } | { outcome: 'queued'; position: number };

export interface QueueOptions {
  /** Random id of this process. */
  instance: string;
  leaseMs: number;
  limits: RunConcurrencyLimits;
  maxQueuedPerUser: number;
}

const SubmittedRow = z.object({
  outcome: z.enum(['running', 'queued', 'full']),
  place: z.number().nullable(),
});
const RunRefRow = z.object({ id: z.string(), owner: OwnerText });
const RenewedRow = z.object({ id: z.string(), cancel_requested: z.boolean() });
const PositionRow = z.object({ id: z.string(), place: z.number() });

/**
 * The run queue of all owners. The SQL functions in `migrations/0005_runs.sql` contain its rules: `submit_run` decides
 * whether a new run starts, `claim_runs` which queued run starts next.
 */
export function createQueueStore(
  database: Database,
  { instance, leaseMs, limits, maxQueuedPerUser }: QueueOptions,
) {
  const lease = `${leaseMs} milliseconds`;
  return {
    /**
     * Stores a run with its audit row `run.started`, and starts it or queues it (`submit_run`).
     * @param hasSlot whether this process has a free slot for the run.
     */
    async submit(run: NewRun, hasSlot: boolean, requestId: string): Promise<Submission> {
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
            sealed: run.ciphertext,
          }),
          hasSlot,
          limits.perUser,
          limits.perServer,
          maxQueuedPerUser,
          instance,
          lease,
          action,
          requestId,
        ],
      );
      const { outcome, place } = row ?? { outcome: 'full', place: null };
      return outcome === 'queued' ? { outcome, position: place ?? 1 } : { outcome };
    },

    /**
     * Claims the next queued runs, at most `max` (`claim_runs`): those of this process, released ones, and with
     * `includeOrphans` those whose lease has expired.
     */
    claim: (max: number, includeOrphans: boolean) =>
      database.rows(RunRefRow, 'SELECT id, owner FROM claim_runs($1, $2, $3, $4, $5, $6)', [
        instance,
        includeOrphans,
        max,
        limits.perUser,
        limits.perServer,
        lease,
      ]),

    /** Renews leases. @returns for each run that this process still holds, whether its cancellation is requested. */
    async renew(ids: readonly string[]): Promise<ReadonlyMap<string, boolean>> {
      const rows = await database.rows(
        RenewedRow,
        'SELECT id, cancel_requested FROM renew_runs($1, $2, $3)',
        [instance, ids, lease],
      );
      return new Map(rows.map((row) => [row.id, row.cancel_requested]));
    },

    /** Takes over up to `max` running runs whose lease has expired. */
    takeOrphans: (max: number) =>
      database.rows(RunRefRow, 'SELECT id, owner FROM take_lost_runs($1, $2, $3)', [instance, max, lease]),

    /** Positions of this process's queued runs, from 1, by run id. */
    async listPositions(): Promise<ReadonlyMap<string, number>> {
      const rows = await database.rows(PositionRow, 'SELECT id, place FROM run_places($1)', [instance]);
      return new Map(rows.map((row) => [row.id, row.place]));
    },

    /** Releases the queued runs of this process to other processes. */
    async release(): Promise<void> {
      await database.run('SELECT release_runs($1)', [instance]);
      await notifyRuns(database, 'released');
    },

    async prune(days: number): Promise<void> {
      await database.run('SELECT prune_runs($1)', [days]);
    },
  };
}

export async function notifyRuns(sql: Sql, payload: string): Promise<void> {
  await sql.run('SELECT pg_notify($1, $2)', [RUNS_CHANNEL, payload]);
}
