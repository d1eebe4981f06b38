import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';
import { LANGUAGES, SERVER_TYPES } from '../runners/runner.ts';
import type { RunExit, ByteCounts } from './events.ts';
import { createQueueStore, notifyRuns, type QueueOptions } from './queue-store.ts';
import { CLEANUPS, EXIT_CAUSES, RUN_STATUSES, type RunsQuery } from './schema.ts';
import { type RunRef, type EncryptedBatch } from './run-encryption.ts';

const RunRow = z.object({
  id: z.string(),
  number: z.string(),
  owner: OwnerText,
  server_id: z.string(),
  server_name: z.string(),
  server_type: z.enum(SERVER_TYPES),
  server_versions: z.array(z.number()),
  language: z.enum(LANGUAGES).nullable(),
  code_sha256: z.string(),
  sealed: z.string(),
  status: z.enum(RUN_STATUSES),
  cause: z.enum(EXIT_CAUSES).nullable(),
  code: z.number().nullable(),
  signal: z.string().nullable(),
  cleanup: z.enum(CLEANUPS).nullable(),
  message: z.string().nullable(),
  duration_ms: z.coerce.number().nullable(),
  stdout_bytes: z.coerce.number(),
  stderr_bytes: z.coerce.number(),
  last_seq: z.number(),
  cancel_requested: z.boolean(),
  created_at: z.date(),
  started_at: z.date().nullable(),
  finished_at: z.date().nullable(),
});
export type RunRow = z.output<typeof RunRow>;

const COLUMNS = Object.keys(RunRow.shape).join(', ');
/** For lists, which do not need the programs. */
const COLUMNS_WITHOUT_PROGRAM = COLUMNS.replace('sealed', `'' AS sealed`);

const ExtentRow = z.object({
  last_seq: z.number(),
  stdout: z.coerce.number(),
  stderr: z.coerce.number(),
  elapsed_ms: z.coerce.number(),
});
const BatchRow = z.object({
  first_seq: z.number(),
  last_seq: z.number(),
  stdout_bytes: z.number(),
  stderr_bytes: z.number(),
  sealed: z.string(),
});

/** Finished runs kept per owner. Older ones are deleted, so that one owner cannot fill the database. */
const MAX_FINISHED_RUNS = 500;

export interface RunCompletion {
  exit: RunExit;
  /** The events that are not yet stored. */
  batches: readonly EncryptedBatch[];
  total: ByteCounts;
  lastSeq: number;
  /** Encrypts the program again, without input, environment and files. */
  reencrypt(ciphertext: string): string;
}

/** What is stored of a run that is not finished. */
export interface StoredExtent {
  lastSeq: number;
  total: ByteCounts;
  /** By the database's clock, which wrote the start. */
  elapsedMs: number;
}
const NO_EXTENT = { last_seq: 0, stdout: 0, stderr: 0, elapsed_ms: 0 };

export interface RunsStoreOptions extends QueueOptions {
  /** Finished runs kept per owner, the most recent ones. */
  maxFinishedRuns?: number;
}

export type RunsStore = ReturnType<typeof createRunsStore>;

/** SQL on runs: the queue of all owners, and the runs of one owner. */
export function createRunsStore(database: Database, options: RunsStoreOptions) {
  return { ...createQueueStore(database, options), ...createOwnerStore(database, options) };
}

/** Statements that run as one owner. */
function createOwnerStore(
  database: Database,
  { instance, maxFinishedRuns = MAX_FINISHED_RUNS }: RunsStoreOptions,
) {
  return {
    /** A run without its encrypted program. */
    async findRun({ id, owner }: RunRef): Promise<RunRow | undefined> {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(RunRow, `SELECT ${COLUMNS_WITHOUT_PROGRAM} FROM runs WHERE id = $1 AND owner = $2`, [
          id,
          owner,
        ]),
      );
      return rows[0];
    },

    /** A run with its encrypted program. */
    async findRunWithProgram({ id, owner }: RunRef): Promise<RunRow | undefined> {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(RunRow, `SELECT ${COLUMNS} FROM runs WHERE id = $1 AND owner = $2`, [id, owner]),
      );
      return rows[0];
    },

    /** Stores the server versions on which a run starts. @returns false when this process does not hold the run. */
    async saveServerVersions({ id, owner }: RunRef, versions: readonly number[]): Promise<boolean> {
      const updated = await database.withOwner(owner, (sql) =>
        sql.run(`UPDATE runs SET server_versions = $3 WHERE id = $1 AND holder = $2 AND status = 'running'`, [
          id,
          instance,
          JSON.stringify(versions),
        ]),
      );
      return updated > 0;
    },

    /** Number of the last stored event of a run, the stored output bytes, and the time since the run's start. */
    async readStoredExtent({ id, owner }: RunRef): Promise<StoredExtent> {
      const [row] = await database.withOwner(owner, (sql) =>
        sql.rows(
          ExtentRow,
          `SELECT coalesce(max(last_seq), 0) AS last_seq, coalesce(sum(stdout_bytes), 0) AS stdout,
             coalesce(sum(stderr_bytes), 0) AS stderr,
             (SELECT coalesce(round(extract(epoch FROM clock_timestamp() - started_at) * 1000), 0)
              FROM runs WHERE id = $1 AND owner = $2) AS elapsed_ms
           FROM run_events WHERE run_id = $1 AND owner = $2`,
          [id, owner],
        ),
      );
      const { last_seq: lastSeq, elapsed_ms: elapsedMs, ...total } = row ?? NO_EXTENT;
      return { lastSeq, total, elapsedMs };
    },

    /**
     * Newest first. Reads one row more than the page size, to detect a next page. All filters must match; the index
     * `runs_history` suffices, since an owner has few runs.
     * @param serverIds the servers whose runs are listed; null for all.
     */
    listRuns: (owner: Owner, query: RunsQuery, serverIds: ReadonlySet<string> | null = null) =>
      database.withOwner(owner, (sql) =>
        sql.rows(
          RunRow,
          `SELECT ${COLUMNS_WITHOUT_PROGRAM} FROM runs WHERE owner = $1 AND ($2::bigint IS NULL OR number < $2::bigint)
             AND ($4::text[] IS NULL OR server_id = ANY ($4)) AND ($5::text IS NULL OR server_id = $5)
             AND ($6::text IS NULL OR status = $6) AND ($7::text IS NULL OR coalesce(language, 'command') = $7)
             AND ($8::text IS NULL OR cause = $8)
           ORDER BY number DESC LIMIT $3`,
          [
            ...[owner, query.cursor ?? null, query.limit + 1, serverIds === null ? null : [...serverIds]],
            ...[query.server_id, query.status, query.language, query.cause].map((value) => value ?? null),
          ],
        ),
      ),

    /** Asks the process that holds the run to end it. @returns false when the run has finished or does not exist. */
    async requestCancel(sql: Sql, id: string): Promise<boolean> {
      const updated = await sql.run(
        `UPDATE runs SET cancel_requested = true WHERE id = $1 AND status <> 'finished'`,
        [id],
      );
      if (updated > 0) await notifyRuns(sql, `cancel ${id}`);
      return updated > 0;
    },

    async hasRun(sql: Sql, id: string): Promise<boolean> {
      return (await sql.rows(z.object({}), 'SELECT FROM runs WHERE id = $1', [id])).length > 0;
    },

    /** Stores events of a run. Does nothing when another process holds the run. */
    saveEvents: (run: RunRef, batches: readonly EncryptedBatch[]) =>
      database.withOwner(run.owner, async (sql) => {
        if ((await lockHeldRun(sql, run, instance)) === undefined) return;
        await insertBatches(sql, run, batches);
        await notifyRuns(sql, `stored ${run.id}`);
      }),

    /** Up to `max` batches that contain events after a number, in order. */
    async readBatches({ id, owner }: RunRef, afterSeq: number, max: number): Promise<EncryptedBatch[]> {
      const rows = await database.withOwner(owner, (sql) =>
        sql.rows(
          BatchRow,
          `SELECT first_seq, last_seq, stdout_bytes, stderr_bytes, sealed FROM run_events
           WHERE run_id = $1 AND owner = $2 AND last_seq > $3 ORDER BY first_seq LIMIT $4`,
          [id, owner, afterSeq, max],
        ),
      );
      return rows.map((row) => ({
        firstSeq: row.first_seq,
        lastSeq: row.last_seq,
        bytes: { stdout: row.stdout_bytes, stderr: row.stderr_bytes },
        ciphertext: row.sealed,
      }));
    },

    /** Stores the exit of a run. @returns false when another process holds the run. */
    finish: (run: RunRef, completion: RunCompletion) =>
      database.withOwner(run.owner, async (sql) => {
        const ciphertext = await lockHeldRun(sql, run, instance);
        if (ciphertext === undefined) return false;
        await insertBatches(sql, run, completion.batches);
        await sql.run(
          `UPDATE runs SET status = 'finished', cause = $2, code = $3, signal = $4, cleanup = $5, message = $6,
             duration_ms = $7, stdout_bytes = $8, stderr_bytes = $9, last_seq = $10, sealed = $11,
             finished_at = clock_timestamp()
           WHERE id = $1`,
          [run.id, ...toExitValues(completion), completion.reencrypt(ciphertext)],
        );
        await sql.run(
          `DELETE FROM runs WHERE owner = $1 AND status = 'finished' AND number <= (
             SELECT number FROM runs WHERE owner = $1 AND status = 'finished'
             ORDER BY number DESC OFFSET $2 LIMIT 1)`,
          [run.owner, maxFinishedRuns],
        );
        await notifyRuns(sql, `ended ${run.id}`);
        return true;
      }),
  };
}

/**
 * Locks an unfinished run that this process holds: no process takes it over before the transaction ends.
 * @returns its ciphertext; undefined when another process holds it.
 */
async function lockHeldRun(sql: Sql, { id }: RunRef, instance: string): Promise<string | undefined> {
  const [row] = await sql.rows(
    z.object({ sealed: z.string() }),
    `SELECT sealed FROM runs WHERE id = $1 AND holder = $2 AND status <> 'finished' FOR NO KEY UPDATE`,
    [id, instance],
  );
  return row?.sealed;
}

function toExitValues({ exit, total, lastSeq }: RunCompletion): unknown[] {
  const { cause, code, signal, cleanup, message, durationMs } = exit;
  return [cause, code, signal, cleanup, message, durationMs, total.stdout, total.stderr, lastSeq];
}

/** Idempotent: a batch that is written again after a lost response replaces the same rows. */
async function insertBatches(
  sql: Sql,
  { id, owner }: RunRef,
  batches: readonly EncryptedBatch[],
): Promise<void> {
  for (const { firstSeq, lastSeq, bytes, ciphertext } of batches) {
    await sql.run(
      `INSERT INTO run_events (run_id, first_seq, last_seq, owner, stdout_bytes, stderr_bytes, sealed)
       VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (run_id, first_seq) DO UPDATE SET
         last_seq = excluded.last_seq, stdout_bytes = excluded.stdout_bytes,
         stderr_bytes = excluded.stderr_bytes, sealed = excluded.sealed`,
      [id, firstSeq, lastSeq, owner, bytes.stdout, bytes.stderr, ciphertext],
    );
  }
}
