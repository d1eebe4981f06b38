import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';

/** How many are read at once: a batch of events may have a megabyte. */
const RUNS_PER_PAGE = 100;
const BATCHES_PER_PAGE = 8;

const RunOwnerRow = z.object({ owner: OwnerText });
const EncryptedRunRow = z.object({ id: z.string(), sealed: z.string() });
const EncryptedBatchRow = z.object({ first_seq: z.number(), sealed: z.string() });

/** Everybody who has runs; for commands that look at all of them, one owner at a time. */
export async function listRunOwners(database: Database): Promise<Owner[]> {
  const rows = await database.rows(RunOwnerRow, 'SELECT owners_of_runs() AS owner');
  return rows.map(({ owner }) => owner);
}

/** Some runs of the transaction's owner, by id. @param afterId of the last one seen; empty to begin. */
export function listEncryptedRuns(sql: Sql, afterId: string): Promise<z.output<typeof EncryptedRunRow>[]> {
  const text = 'SELECT id, sealed FROM runs WHERE id > $1 ORDER BY id LIMIT $2';
  return sql.rows(EncryptedRunRow, text, [afterId, RUNS_PER_PAGE]);
}

/** Some batches of a run's events, in their order. @param afterSeq the `firstSeq` of the last one seen; -1 to begin. */
export async function listEncryptedBatches(
  sql: Sql,
  runId: string,
  afterSeq: number,
): Promise<{ firstSeq: number; sealed: string }[]> {
  const rows = await sql.rows(
    EncryptedBatchRow,
    `SELECT first_seq, sealed FROM run_events WHERE run_id = $1 AND first_seq > $2
     ORDER BY first_seq LIMIT $3`,
    [runId, afterSeq, BATCHES_PER_PAGE],
  );
  return rows.map((row) => ({ firstSeq: row.first_seq, sealed: row.sealed }));
}

/** @returns false when the run holds another token than `from`, or is gone. */
export async function replaceRunCiphertext(sql: Sql, id: string, from: string, to: string): Promise<boolean> {
  return (await sql.run('UPDATE runs SET sealed = $3 WHERE id = $1 AND sealed = $2', [id, from, to])) > 0;
}

/** @returns false when the batch holds another token than `from`, or is gone. */
export async function replaceBatchCiphertext(
  sql: Sql,
  { runId, firstSeq }: { runId: string; firstSeq: number },
  from: string,
  to: string,
): Promise<boolean> {
  const text = 'UPDATE run_events SET sealed = $4 WHERE run_id = $1 AND first_seq = $2 AND sealed = $3';
  return (await sql.run(text, [runId, firstSeq, from, to])) > 0;
}
