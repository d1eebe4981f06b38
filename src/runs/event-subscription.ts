import { setTimeout as rest } from 'node:timers/promises';
import type { NumberedEvent, RunExit } from './events.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { RunRow, RunsStore } from './runs-store.ts';
import type { RunRef, RunEncryption, EncryptedBatch } from './run-encryption.ts';

export interface EventSubscriptionsDeps {
  store: Pick<RunsStore, 'findRun' | 'readBatches'>;
  seals: RunEncryption;
  dispatcher: Pick<Dispatcher, 'find'>;
}

/** Brings the events of runs to those who watch. */
export interface EventSubscriptions {
  /**
   * Yields a run's events after a number, stored and live, up to its exit or until `signal` ends.
   * @throws AppError `database_unavailable` (503) where they have to be read from there.
   */
  subscribe(run: RunRef, afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** Something of a run was stored, here or elsewhere. */
  wake(runId: string): void;
}

/** Notices of other processes may be missed. */
const POLL_INTERVAL_MS = 1_000;
const MAX_BATCHES_PER_READ = 4;

/** Builds it: what this process has comes from its memory, everything else from the spool. */
export function createEventSubscriptions({
  store,
  seals,
  dispatcher,
}: EventSubscriptionsDeps): EventSubscriptions {
  const waiters = new Map<string, Set<() => void>>();

  async function* readStored(run: RunRef, afterSeq: number, signal: AbortSignal) {
    let seq = afterSeq;
    while (!signal.aborted) {
      // Before the events: of a run that has ended by then, all of them are there.
      const row = await store.findRun(run);
      if (row === undefined) return;
      const batches = await store.readBatches(run, seq, MAX_BATCHES_PER_READ);
      for (const batch of batches) {
        for (const one of decryptBatch(run, batch, row).filter((event) => event.seq > seq)) {
          yield one;
          seq = one.seq;
          if (one.news.type === 'exit') return;
        }
        seq = Math.max(seq, batch.lastSeq);
      }
      if (batches.length > 0) continue;
      const exit = toRunExit(row);
      if (exit === undefined) await news(run.id, signal);
      // Whoever watched a run in a process that is gone may have seen more of it than was stored.
      else if (seq < row.last_seq || exit.cause === 'lost') {
        yield { seq: Math.max(seq, row.last_seq), news: exit };
        return;
      } else return;
    }
  }

  /** A batch that does not decrypt is told as what is missing. */
  function decryptBatch(run: RunRef, batch: EncryptedBatch, row: RunRow): NumberedEvent[] {
    const events = seals.decryptEvents(run, batch);
    if (events !== undefined) return events;
    const missing = (['stdout', 'stderr'] as const)
      .filter((stream) => batch.bytes[stream] > 0)
      .map((stream) => ({ type: 'truncated' as const, stream, droppedBytes: batch.bytes[stream] }));
    const exit = batch.lastSeq === row.last_seq ? toRunExit(row) : undefined;
    const all = exit === undefined ? missing : [...missing, exit];
    return all.map((one, at) => ({ seq: batch.lastSeq - all.length + 1 + at, news: one }));
  }

  async function news(runId: string, signal: AbortSignal): Promise<void> {
    const told = new AbortController();
    const wake = () => {
      told.abort();
    };
    const wakers = waiters.get(runId) ?? new Set();
    waiters.set(runId, wakers.add(wake));
    signal.addEventListener('abort', wake);
    await rest(POLL_INTERVAL_MS, undefined, { signal: told.signal }).catch(() => undefined);
    signal.removeEventListener('abort', wake);
    wakers.delete(wake);
    if (wakers.size === 0) waiters.delete(runId);
  }

  return {
    async *subscribe(run, afterSeq, signal) {
      let seq = afterSeq;
      const activeRun = dispatcher.find(run);
      if (activeRun !== undefined) {
        for await (const one of activeRun.events.subscribe(seq, signal)) {
          yield one;
          seq = one.seq;
          if (one.news.type === 'exit') return;
        }
      }
      // This process stops: whoever watches comes back to another one.
      if (activeRun?.stopReason !== 'released') yield* readStored(run, seq, signal);
    },
    wake(runId) {
      for (const wake of waiters.get(runId) ?? []) wake();
    },
  };
}

/** How a run ended, as its row has it. */
function toRunExit({ cause, code, signal, cleanup, message, duration_ms: ms }: RunRow): RunExit | undefined {
  if (cause === null || cleanup === null) return undefined;
  return { type: 'exit', cause, code, signal, cleanup, message, durationMs: ms ?? 0 };
}
