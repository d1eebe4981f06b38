import { setTimeout as delay } from 'node:timers/promises';
import { OUTPUT_STREAMS, type NumberedEvent, type RunExit } from './events.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import type { RunRef, RunEncryption, EncryptedBatch } from './run-encryption.ts';

export interface EventSubscriptionsDeps {
  store: Pick<RunsStore, 'findRun' | 'readBatches'>;
  encryption: RunEncryption;
  dispatcher: Pick<Dispatcher, 'find'>;
}

/** The events of runs for their viewers, from memory and from the database. */
export interface EventSubscriptions {
  /**
   * Yields a run's events after a number, stored and live, up to its exit or until `signal` aborts.
   * @throws AppError `database_unavailable` (503) when the events are read from the database.
   */
  subscribe(run: RunRef, afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /**
   * Yields the kept events of a run when it has ended: the same from memory as from the database. Ends without an exit
   * when `signal` aborts.
   * @throws as {@link subscribe}.
   */
  subscribeKept(run: RunRef, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** Wakes the subscribers of a run. To be called when a process has stored events of it. */
  wake(runId: string): void;
}

/** Polling is the fallback for missed notifications. */
const POLL_INTERVAL_MS = 1_000;
const MAX_BATCHES_PER_READ = 4;

/** Reads runs of this process from memory, and all others from the database. */
export function createEventSubscriptions({
  store,
  encryption,
  dispatcher,
}: EventSubscriptionsDeps): EventSubscriptions {
  const waiters = new Map<string, Set<() => void>>();

  async function* readStored(run: RunRef, afterSeq: number, signal: AbortSignal) {
    let seq = afterSeq;
    while (!signal.aborted) {
      // Read before the events: if this row has an exit, all events are stored.
      const row = await store.findRun(run);
      if (row === undefined) return;
      const batches = await store.readBatches(run, seq, MAX_BATCHES_PER_READ);
      for (const batch of batches) {
        for (const numbered of decryptBatch(run, batch, row).filter((each) => each.seq > seq)) {
          yield numbered;
          seq = numbered.seq;
          if (numbered.event.type === 'exit') return;
        }
        seq = Math.max(seq, batch.lastSeq);
      }
      if (batches.length > 0) continue;
      const exit = toRunExit(row);
      if (exit === undefined) await waitForChange(run.id, signal);
      // A viewer of a process that has ended may have received more events than were stored.
      else if (seq < row.last_seq || exit.cause === 'lost') {
        yield { seq: Math.max(seq, row.last_seq), event: exit };
        return;
      } else return;
    }
  }

  /** A batch that does not decrypt becomes `truncated` events. */
  function decryptBatch(run: RunRef, batch: EncryptedBatch, row: RunRow): NumberedEvent[] {
    const events = encryption.decryptEvents(run, batch);
    if (events !== undefined) return events;
    const missing = OUTPUT_STREAMS.filter((stream) => batch.bytes[stream] > 0).map((stream) => ({
      type: 'truncated' as const,
      stream,
      droppedBytes: batch.bytes[stream],
    }));
    const exit = batch.lastSeq === row.last_seq ? toRunExit(row) : undefined;
    const all = exit === undefined ? missing : [...missing, exit];
    return all.map((event, at) => ({ seq: batch.lastSeq - all.length + 1 + at, event }));
  }

  async function waitForChange(runId: string, signal: AbortSignal): Promise<void> {
    const changed = new AbortController();
    const wake = () => {
      changed.abort();
    };
    const runWaiters = waiters.get(runId) ?? new Set();
    waiters.set(runId, runWaiters.add(wake));
    signal.addEventListener('abort', wake);
    await delay(POLL_INTERVAL_MS, undefined, { signal: changed.signal }).catch(() => undefined);
    signal.removeEventListener('abort', wake);
    runWaiters.delete(wake);
    if (runWaiters.size === 0) waiters.delete(runId);
  }

  return {
    async *subscribe(run, afterSeq, signal) {
      let seq = afterSeq;
      const heldRun = dispatcher.find(run);
      if (heldRun !== undefined) {
        for await (const numbered of heldRun.events.subscribe(seq, signal)) {
          yield numbered;
          seq = numbered.seq;
          if (numbered.event.type === 'exit') return;
        }
      }
      // This process shuts down: viewers reconnect to another one.
      if (heldRun?.stopReason !== 'released') yield* readStored(run, seq, signal);
    },
    async *subscribeKept(run, signal) {
      const heldRun = dispatcher.find(run);
      if (heldRun !== undefined) {
        await heldRun.events.ended(signal);
        const kept = [...heldRun.events.head(0), ...heldRun.events.tail()];
        if (kept.at(-1)?.event.type === 'exit') {
          yield* kept;
          return;
        }
      }
      if (heldRun?.stopReason !== 'released') yield* readStored(run, 0, signal);
    },
    wake(runId) {
      for (const wake of waiters.get(runId) ?? []) wake();
    },
  };
}

/** The exit stored in a run's row; undefined while the run has none. */
function toRunExit({ cause, code, signal, cleanup, message, duration_ms: ms }: RunRow): RunExit | undefined {
  if (cause === null || cleanup === null) return undefined;
  return { type: 'exit', cause, code, signal, cleanup, message, durationMs: ms ?? 0 };
}
