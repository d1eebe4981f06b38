import { setTimeout as rest } from 'node:timers/promises';
import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { addByteCounts, NO_BYTES, countOutputBytes, type NumberedEvent, type RunExit } from './events.ts';
import type { ActiveRun } from './active-run.ts';
import type { RunsStore } from './runs-store.ts';
import type { RunEncryption, EncryptedBatch } from './run-encryption.ts';

export interface EventWriterDeps {
  store: Pick<RunsStore, 'saveEvents' | 'finish'>;
  seals: RunEncryption;
  log: Log;
  /** Aborted when the database is about to be closed: nothing is tried any more. */
  closing: AbortSignal;
}

/** Stores one run's events beside it. */
export interface EventWriter {
  /**
   * Stores the rest and how the run ended, as often as it takes. No news may come any more.
   * @returns false when the run is another process's by now, or this one is closing.
   */
  finish(exit: RunExit): Promise<boolean>;
  /** Stores what there is, for whoever goes on. */
  flush(): Promise<void>;
  /** Stores nothing more. */
  stop(): void;
}

/** Events are stored in batches, a moment after they were told to those who watch. */
const WRITE_DELAY_MS = 200;
const RETRY_DELAY_MS = 1_000;
const MAX_BATCH_BYTES = 256 * 1024;
const MAX_BATCH_EVENTS = 2_000;

/**
 * Begins to store a run's events; a database that is away is tried again, and nobody waits for it.
 * @param storedSeq the last event that is stored already.
 */
export function createEventWriter(run: ActiveRun, storedSeq: number, deps: EventWriterDeps): EventWriter {
  const { events: journal } = run;
  const { store, seals, log, closing } = deps;
  let savedSeq = storedSeq;
  let saving = Promise.resolve();
  let isStopped = false;
  let isFailing = false;

  /**
   * @param onRefused hears that the database is there and does not take it: trying again would not help.
   * @returns undefined when it failed, which the log hears of once.
   */
  async function attempt<T>(work: () => Promise<T>, onRefused?: () => void): Promise<T | undefined> {
    try {
      const result = await work();
      isFailing = false;
      return result;
    } catch (error) {
      if (!isFailing) log.warn({ err: error, run: run.id }, 'the history of a run could not be stored yet');
      isFailing = true;
      if (!isAppError(error, 'database_unavailable')) onRefused?.();
      return undefined;
    }
  }

  async function save(): Promise<void> {
    const news = journal.head(savedSeq);
    const last = news.at(-1);
    if (last === undefined) return;
    const isSaved = await attempt(async () => {
      await store.saveEvents(run, encryptBatches(seals, run, news));
      return true;
    });
    if (isSaved) savedSeq = last.seq;
  }

  async function writeLoop(): Promise<void> {
    for (;;) {
      await journal.headGrown(savedSeq);
      await rest(isFailing ? RETRY_DELAY_MS : WRITE_DELAY_MS, undefined, { signal: closing });
      if (isStopped || journal.hasEnded) return;
      saving = save();
      await saving;
    }
  }

  // It throws only when the process closes.
  writeLoop().catch(() => undefined);

  return {
    async finish(exit) {
      isStopped = true;
      await saving;
      let end = exit;
      let refusals = 0;
      for (;;) {
        const lastSeq = journal.lastSeq + 1;
        const batches = encryptBatches(seals, run, [...journal.head(savedSeq), ...toFinalEvents(run, end)]);
        const { total } = journal;
        const reseal = (sealed: string) => seals.reencryptProgram(run, sealed);
        const isOurs = await attempt(
          () => store.finish(run, { exit: end, batches, total, lastSeq, reseal }),
          () => (refusals += 1),
        );
        if (isOurs !== undefined) return isOurs;
        // What is not taken twice is left to its lease: it must not hold a place for ever.
        if (closing.aborted || refusals > 1) return false;
        if (refusals === 1) end = withoutDetails(exit);
        await rest(RETRY_DELAY_MS, undefined, { signal: closing }).catch(() => undefined);
      }
    },
    async flush() {
      isStopped = true;
      await saving;
      await save();
    },
    stop() {
      isStopped = true;
    },
  };
}

/** The exit of a run whose own the database does not take. */
function withoutDetails({ cleanup, durationMs }: RunExit): RunExit {
  const message = 'How the run ended could not be stored.';
  return { type: 'exit', cause: 'infrastructure', code: null, signal: null, cleanup, message, durationMs };
}

/** The last events as they are stored: what was only told live stands as `truncated`, before the exit. */
function toFinalEvents({ events: journal }: ActiveRun, exit: RunExit): NumberedEvent[] {
  const beyond = journal.bytesBeyondHead();
  const dropped = (['stdout', 'stderr'] as const).filter((stream) => beyond[stream] > 0);
  const exitSeq = journal.lastSeq + 1;
  return [
    ...dropped.map((stream, at) => ({
      seq: exitSeq - dropped.length + at,
      news: { type: 'truncated' as const, stream, droppedBytes: beyond[stream] },
    })),
    { seq: exitSeq, news: exit },
  ];
}

function encryptBatches(
  seals: RunEncryption,
  run: ActiveRun,
  news: readonly NumberedEvent[],
): EncryptedBatch[] {
  const batches: EncryptedBatch[] = [];
  let batch: NumberedEvent[] = [];
  let bytes = NO_BYTES;
  for (const one of news) {
    batch.push(one);
    bytes = addByteCounts(bytes, countOutputBytes(one.news));
    if (bytes.stdout + bytes.stderr < MAX_BATCH_BYTES && batch.length < MAX_BATCH_EVENTS) continue;
    batches.push(seals.encryptEvents(run, batch));
    batch = [];
    bytes = NO_BYTES;
  }
  if (batch.length > 0) batches.push(seals.encryptEvents(run, batch));
  return batches;
}
