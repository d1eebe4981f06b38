import type { Database } from '../lib/database.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { SealedTexts, SealedText } from '../lib/sealed-texts.ts';
import { listRunOwners, pageOfBatches, pageOfRuns, replaceOfBatch, replaceOfRun } from './resealing-store.ts';
import { createRunSeals, type RunName } from './sealed.ts';

/** What was run and what came of it: one text per run, and one per batch of its events. */
export function createSealedRuns({
  database,
  keyring,
}: {
  database: Database;
  keyring: Keyring;
}): SealedTexts {
  const seals = createRunSeals(keyring);

  const programOf = (run: RunName, token: string): SealedText => ({
    owner: run.owner,
    name: `run ${run.id}`,
    token,
    isInPlace: () => Promise.resolve(seals.openProgram(run, token) !== undefined),
    replace: (next) => database.withOwner(run.owner, (sql) => replaceOfRun(sql, run.id, token, next)),
  });

  const eventsOf = (run: RunName, batch: { firstSeq: number; sealed: string }): SealedText => ({
    owner: run.owner,
    name: `run ${run.id}, events from ${batch.firstSeq}`,
    token: batch.sealed,
    isInPlace: () => Promise.resolve(seals.openEvents(run, batch) !== undefined),
    replace: (next) =>
      database.withOwner(run.owner, (sql) =>
        replaceOfBatch(sql, { runId: run.id, firstSeq: batch.firstSeq }, batch.sealed, next),
      ),
  });

  async function* batchesOf(run: RunName): AsyncGenerator<SealedText> {
    for (let afterSeq = -1; ;) {
      const page = await database.withOwner(run.owner, (sql) => pageOfBatches(sql, run.id, afterSeq));
      for (const batch of page) yield eventsOf(run, batch);
      const last = page.at(-1);
      if (last === undefined) return;
      afterSeq = last.firstSeq;
    }
  }

  async function* runsOf(owner: RunName['owner']): AsyncGenerator<SealedText> {
    for (let afterId = ''; ;) {
      const page = await database.withOwner(owner, (sql) => pageOfRuns(sql, afterId));
      for (const { id, sealed } of page) {
        yield programOf({ id, owner }, sealed);
        yield* batchesOf({ id, owner });
      }
      const last = page.at(-1);
      if (last === undefined) return;
      afterId = last.id;
    }
  }

  return {
    kind: 'runs and their events',
    async *list() {
      for (const owner of await listRunOwners(database)) yield* runsOf(owner);
    },
  };
}
