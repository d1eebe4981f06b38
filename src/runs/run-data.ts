import { z } from 'zod';
import type { Database, Sql } from '../lib/postgres/database.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { EncryptedTexts, EncryptedText } from '../lib/crypto/encrypted-texts.ts';
import { OwnerText, type Owner } from '../lib/owner.ts';
import { createRunEncryption, type RunRef } from './run-encryption.ts';

/** Rows read at once: a batch of events can have a megabyte. */
const RUNS_PER_PAGE = 100;
const BATCHES_PER_PAGE = 8;

const RunOwnerRow = z.object({ owner: OwnerText });
const EncryptedRunRow = z.object({ id: z.string(), sealed: z.string() });
const EncryptedBatchRow = z.object({ first_seq: z.number(), sealed: z.string() });

/** The runs of all owners, for commands and for the removal of users. */
export interface RunData {
  /** The encrypted texts: one per run, and one per batch of its events. */
  texts: EncryptedTexts;
  listOwners(): Promise<Owner[]>;
  /** Deletes all runs of an owner, with their events. Runs that are running end. */
  remove(owner: Owner): Promise<void>;
}

export function createRunData({ database, keyring }: { database: Database; keyring: Keyring }): RunData {
  const encryption = createRunEncryption(keyring);

  async function listOwners(): Promise<Owner[]> {
    const rows = await database.rows(RunOwnerRow, 'SELECT owners_of_runs() AS owner');
    return rows.map(({ owner }) => owner);
  }

  async function* listBatches(run: RunRef): AsyncGenerator<EncryptedText> {
    const batches = readPages(EncryptedBatchRow, run.owner, (last) => [
      'SELECT first_seq, sealed FROM run_events WHERE run_id = $1 AND first_seq > $2 ORDER BY first_seq LIMIT $3',
      [run.id, last?.first_seq ?? -1, BATCHES_PER_PAGE],
    ]);
    for await (const { first_seq: firstSeq, sealed: ciphertext } of batches)
      yield {
        owner: run.owner,
        ciphertext,
        isValid: () => encryption.decryptEvents(run, { firstSeq, ciphertext }) !== undefined,
        replace: (sql, next) =>
          updateRow(
            sql,
            'UPDATE run_events SET sealed = $4 WHERE run_id = $1 AND first_seq = $2 AND sealed = $3',
            [run.id, firstSeq, ciphertext, next],
          ),
      };
  }

  async function* listRuns(owner: Owner): AsyncGenerator<EncryptedText> {
    const runs = readPages(EncryptedRunRow, owner, (last) => [
      'SELECT id, sealed FROM runs WHERE id > $1 ORDER BY id LIMIT $2',
      [last?.id ?? '', RUNS_PER_PAGE],
    ]);
    for await (const { id, sealed: ciphertext } of runs) {
      const run = { id, owner };
      yield {
        owner,
        ciphertext,
        isValid: () => encryption.decryptProgram(run, ciphertext) !== undefined,
        replace: (sql, next) =>
          updateRow(sql, 'UPDATE runs SET sealed = $3 WHERE id = $1 AND sealed = $2', [id, ciphertext, next]),
      };
      yield* listBatches(run);
    }
  }

  /** @param toQuery query of the page after a row, or of the first page. */
  async function* readPages<T>(
    schema: z.ZodType<T>,
    owner: Owner,
    toQuery: (last: T | undefined) => [text: string, values: unknown[]],
  ): AsyncGenerator<T> {
    for (let last: T | undefined; ;) {
      const page = await database.withOwner(owner, (sql) => sql.rows(schema, ...toQuery(last)));
      yield* page;
      last = page.at(-1);
      if (last === undefined) return;
    }
  }

  return {
    texts: {
      kind: 'runs and their events',
      async *list() {
        for (const owner of await listOwners()) yield* listRuns(owner);
      },
    },
    listOwners,
    async remove(owner) {
      await database.withOwner(owner, (sql) => sql.run('DELETE FROM runs WHERE owner = $1', [owner]));
    },
  };
}

/** @returns false when no row matches. */
async function updateRow(sql: Sql, text: string, values: unknown[]): Promise<boolean> {
  return (await sql.run(text, values)) > 0;
}
