import { setTimeout as delay } from 'node:timers/promises';
import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { addByteCounts, NO_BYTES, countOutputBytes, type NumberedEvent, type RunExit } from './events.ts';
import type { EventBuffer } from './event-buffer.ts';
import type { RunsStore } from './runs-store.ts';
import type { RunEncryption, RunRef, EncryptedBatch } from './run-encryption.ts';

export interface EventWriterDeps {
  store: Pick<RunsStore, 'saveEvents' | 'finish'>;
  encryption: RunEncryption;
  log: Log;
  /** Aborted before the database is closed; ends all retries. */
  closing: AbortSignal;
}

/** Stores the events of one run while it is running. */
export interface EventWriter {
  /**
   * Stores the remaining events and the exit, with retries. No event may be appended after this call.
   * @returns false when another process holds the run, when this process is closing, or when the database rejects
   *   the exit.
   */
  finish(exit: RunExit): Promise<boolean>;
  /** Stores the events so far, for the process that continues the run, and stops. */
  flush(): Promise<void>;
  /** Stores nothing more. */
  stop(): void;
}

/** Events are stored in batches, with this delay after viewers receive them. */
const WRITE_DELAY_MS = 200;
const RETRY_DELAY_MS = 1_000;
const MAX_BATCH_BYTES = 256 * 1024;
const MAX_BATCH_EVENTS = 2_000;

/**
 * Starts to store a run's events. Failed writes are retried; the run does not wait for them.
 * @param storedSeq number of the last stored event.
 */
export function createEventWriter(
  run: RunRef & { readonly events: EventBuffer },
  storedSeq: number,
  deps: EventWriterDeps,
): EventWriter {
  const { events: buffer } = run;
  const { store, encryption, log, closing } = deps;
  let savedSeq = storedSeq;
  let saving = Promise.resolve();
  let isStopped = false;
  let isFailing = false;

  /**
   * @param onRejected called when the database is available and rejects the write, so that a retry does not help.
   * @returns undefined when the write failed. A series of failures is logged once.
   */
  async function attempt<T>(work: () => Promise<T>, onRejected?: () => void): Promise<T | undefined> {
    try {
      const result = await work();
      isFailing = false;
      return result;
    } catch (error) {
      if (!isFailing)
        log.warn({ err: error, run: run.id }, 'the history of a run could not be stored; retrying');
      isFailing = true;
      if (!isAppError(error, 'database_unavailable')) onRejected?.();
      return undefined;
    }
  }

  async function save(): Promise<void> {
    const events = buffer.head(savedSeq);
    const last = events.at(-1);
    if (last === undefined) return;
    const isSaved = await attempt(async () => {
      await store.saveEvents(run, encryptBatches(encryption, run, events));
      return true;
    });
    if (isSaved) savedSeq = last.seq;
  }

  async function writeLoop(): Promise<void> {
    for (;;) {
      await buffer.headGrown(savedSeq);
      await delay(isFailing ? RETRY_DELAY_MS : WRITE_DELAY_MS, undefined, { signal: closing });
      if (isStopped || buffer.hasEnded) return;
      saving = save();
      await saving;
    }
  }

  // Rejects only when `closing` aborts.
  writeLoop().catch(() => undefined);

  return {
    async finish(exit) {
      isStopped = true;
      await saving;
      let storedExit = exit;
      let rejections = 0;
      for (;;) {
        const lastSeq = buffer.lastSeq + 1;
        const batches = encryptBatches(encryption, run, [
          ...buffer.head(savedSeq),
          ...buffer.tail(),
          { seq: lastSeq, event: storedExit },
        ]);
        const { total } = buffer;
        const reencrypt = (ciphertext: string) => encryption.reencryptProgram(run, ciphertext);
        const isHeld = await attempt(
          () => store.finish(run, { exit: storedExit, batches, total, lastSeq, reencrypt }),
          () => (rejections += 1),
        );
        if (isHeld !== undefined) return isHeld;
        // The second rejection ends the attempts. The slot is freed, and the lease of the run expires.
        if (closing.aborted || rejections > 1) return false;
        if (rejections === 1) storedExit = withoutDetails(exit);
        await delay(RETRY_DELAY_MS, undefined, { signal: closing }).catch(() => undefined);
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

/** The exit stored when the database rejects the original one. */
function withoutDetails({ cleanup, durationMs }: RunExit): RunExit {
  const message = 'The exit of the run could not be stored. Run it again.';
  return { type: 'exit', cause: 'infrastructure', code: null, signal: null, cleanup, message, durationMs };
}

function encryptBatches(
  encryption: RunEncryption,
  run: RunRef,
  events: readonly NumberedEvent[],
): EncryptedBatch[] {
  const batches: EncryptedBatch[] = [];
  let batch: NumberedEvent[] = [];
  let bytes = NO_BYTES;
  for (const numbered of events) {
    batch.push(numbered);
    bytes = addByteCounts(bytes, countOutputBytes(numbered.event));
    if (bytes.stdout + bytes.stderr < MAX_BATCH_BYTES && batch.length < MAX_BATCH_EVENTS) continue;
    batches.push(encryption.encryptEvents(run, batch));
    batch = [];
    bytes = NO_BYTES;
  }
  if (batch.length > 0) batches.push(encryption.encryptEvents(run, batch));
  return batches;
}
