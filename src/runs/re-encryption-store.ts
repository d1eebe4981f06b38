import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

/** Rows read at once: a batch of events can have a megabyte. */
const RUNS_PER_PAGE = 100;
const BATCHES_PER_PAGE = 8;

const RunOwnerRow = z.object({ owner: OwnerText });
const EncryptedRunRow = z.object({ id: z.string(), sealed: z.string() });
const EncryptedBatchRow = z.object({ first_seq: z.number(), sealed: z.string() });

/** All owners of runs, for commands that process the runs of one owner after another. */
export async function listRunOwners(database: Database): Promise<Owner[]> {
  const rows = await database.rows(RunOwnerRow, 'SELECT owners_of_runs() AS owner');
  return rows.map(({ owner }) => owner);
}

/**
 * One page of the runs of the transaction's owner, by id.
 * @param afterId id of the last run of the previous page; empty for the first page.
 */
export function listEncryptedRuns(sql: Sql, afterId: string): Promise<z.output<typeof EncryptedRunRow>[]> {
  const text = 'SELECT id, sealed FROM runs WHERE id > $1 ORDER BY id LIMIT $2';
  return sql.rows(EncryptedRunRow, text, [afterId, RUNS_PER_PAGE]);
}

/**
 * One page of a run's batches of events, in order.
 * @param afterSeq `firstSeq` of the last batch of the previous page; -1 for the first page.
 */
export async function listEncryptedBatches(
  sql: Sql,
  runId: string,
  afterSeq: number,
): Promise<{ firstSeq: number; ciphertext: string }[]> {
  const rows = await sql.rows(
    EncryptedBatchRow,
    `SELECT first_seq, sealed FROM run_events WHERE run_id = $1 AND first_seq > $2
     ORDER BY first_seq LIMIT $3`,
    [runId, afterSeq, BATCHES_PER_PAGE],
  );
  return rows.map((row) => ({ firstSeq: row.first_seq, ciphertext: row.sealed }));
}

/** @returns false when the run has another ciphertext than `from`, or is gone. */
export async function replaceRunCiphertext(sql: Sql, id: string, from: string, to: string): Promise<boolean> {
  return (await sql.run('UPDATE runs SET sealed = $3 WHERE id = $1 AND sealed = $2', [id, from, to])) > 0;
}

/** @returns false when the batch has another ciphertext than `from`, or is gone. */
export async function replaceBatchCiphertext(
  sql: Sql,
  { runId, firstSeq }: { runId: string; firstSeq: number },
  from: string,
  to: string,
): Promise<boolean> {
  const text = 'UPDATE run_events SET sealed = $4 WHERE run_id = $1 AND first_seq = $2 AND sealed = $3';
  return (await sql.run(text, [runId, firstSeq, from, to])) > 0;
}
