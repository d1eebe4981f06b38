import type { Database } from '../lib/postgres/database.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { EncryptedTexts, EncryptedText } from '../lib/crypto/encrypted-texts.ts';
import {
  listRunOwners,
  listEncryptedBatches,
  listEncryptedRuns,
  replaceBatchCiphertext,
  replaceRunCiphertext,
} from './re-encryption-store.ts';
import { createRunEncryption, type RunRef } from './run-encryption.ts';

/** The encrypted texts of runs: one per run, and one per batch of its events. */
export function createEncryptedRuns({
  database,
  keyring,
}: {
  database: Database;
  keyring: Keyring;
}): EncryptedTexts {
  const encryption = createRunEncryption(keyring);

  const toProgramText = (run: RunRef, ciphertext: string): EncryptedText => ({
    owner: run.owner,
    name: `run ${run.id}`,
    ciphertext: ciphertext,
    isValid: () => Promise.resolve(encryption.decryptProgram(run, ciphertext) !== undefined),
    replace: (next) =>
      database.withOwner(run.owner, (sql) => replaceRunCiphertext(sql, run.id, ciphertext, next)),
  });

  const toEventsText = (run: RunRef, batch: { firstSeq: number; ciphertext: string }): EncryptedText => ({
    owner: run.owner,
    name: `run ${run.id}, events from ${batch.firstSeq}`,
    ciphertext: batch.ciphertext,
    isValid: () => Promise.resolve(encryption.decryptEvents(run, batch) !== undefined),
    replace: (next) =>
      database.withOwner(run.owner, (sql) =>
        replaceBatchCiphertext(sql, { runId: run.id, firstSeq: batch.firstSeq }, batch.ciphertext, next),
      ),
  });

  async function* listBatches(run: RunRef): AsyncGenerator<EncryptedText> {
    for (let afterSeq = -1; ;) {
      const page = await database.withOwner(run.owner, (sql) => listEncryptedBatches(sql, run.id, afterSeq));
      for (const batch of page) yield toEventsText(run, batch);
      const last = page.at(-1);
      if (last === undefined) return;
      afterSeq = last.firstSeq;
    }
  }

  async function* listRuns(owner: RunRef['owner']): AsyncGenerator<EncryptedText> {
    for (let afterId = ''; ;) {
      const page = await database.withOwner(owner, (sql) => listEncryptedRuns(sql, afterId));
      for (const { id, sealed: ciphertext } of page) {
        yield toProgramText({ id, owner }, ciphertext);
        yield* listBatches({ id, owner });
      }
      const last = page.at(-1);
      if (last === undefined) return;
      afterId = last.id;
    }
  }

  return {
    kind: 'runs and their events',
    async *list() {
      for (const owner of await listRunOwners(database)) yield* listRuns(owner);
    },
  };
}
