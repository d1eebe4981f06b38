import { getUserId } from '../lib/owner.ts';
import type { PreparedRun } from './executor.ts';
import type { RunExit } from './events.ts';
import { createRunLifecycle, type ActiveRunEntry, type RunLifecycleDeps } from './lifecycle.ts';
import { createActiveRun, type ActiveRun } from './active-run.ts';
import { toPrincipal } from './preparation.ts';
import type { RunsStore } from './runs-store.ts';
import { type RunRef } from './run-encryption.ts';

export interface ActiveRunsDeps extends RunLifecycleDeps {
  store: RunsStore;
}

/** The runs of this process, each from its acceptance until its exit is stored. */
export interface ActiveRuns {
  find(run: RunRef): ActiveRun | undefined;
  /** Adds a run while its row is being stored. @returns a function that removes it again. */
  register(run: ActiveRun): () => void;
  /** Starts a run. @param releaseSlot called once, when the run has ended. */
  start(run: ActiveRun, prepared: PreparedRun, releaseSlot: () => void): void;
  /** Waits until the queue allows the run to start. @param position in the queue, from 1. */
  enqueue(run: ActiveRun, position: number): void;
  /** Starts a claimed run: one that is queued here, or one of a process that is gone. */
  startQueued(ref: RunRef, releaseSlot: () => void): void;
  readonly hasQueued: boolean;
  /** Appends a `queued` event to each run whose position has changed. */
  publishPositions(positions: ReadonlyMap<string, number>): void;
  /** Stops waiting for the queued runs, so that other processes can take them. */
  releaseQueued(): Promise<void>;
  /** The runs whose leases this process renews. */
  listLeased(): RunRef[];
  /** @param isCancelRequested undefined when this process does not hold the run any more. */
  applyDatabaseState(runId: string, isCancelRequested: boolean | undefined): void;
  /** Resolves when no run is under way and every exit is stored. */
  settled(): Promise<void>;
}

const noSlot = () => undefined;
const notStarted = Promise.resolve();

export function createActiveRuns(deps: ActiveRunsDeps): ActiveRuns {
  const { store, log } = deps;
  const lifecycle = createRunLifecycle(deps);
  const entries = new Map<string, ActiveRunEntry>();
  const pending = new Set<Promise<void>>();

  const listQueued = () =>
    [...entries.values()].filter((entry) => entry.state === 'queued' && entry.releaseSlot === noSlot);

  function runLifecycle(
    entry: ActiveRunEntry,
    storedSeq: number,
    work: () => Promise<RunExit | undefined>,
  ): Promise<void> {
    const finished = lifecycle.runToEnd(entry, storedSeq, work).finally(() => {
      entries.delete(entry.run.id);
      entry.releaseSlot();
    });
    return trackPending(finished);
  }

  function trackPending(work: Promise<void>): Promise<void> {
    const tracked = work
      .catch((error: unknown) => {
        log.error({ err: error }, 'a run ended without a stored exit');
      })
      .finally(() => pending.delete(tracked));
    pending.add(tracked);
    return tracked;
  }

  /** Takes over a queued run of a process that is gone, with the events that it has stored. */
  async function adopt(ref: RunRef, releaseSlot: () => void): Promise<void> {
    const row = await store.findRunWithProgram(ref).catch(() => undefined);
    const decrypted = row && deps.encryption.decryptRun(ref, row.sealed);
    // The run has ended since its claim, or its row cannot be read: then its lease expires.
    if (row?.status !== 'running') {
      releaseSlot();
      return;
    }
    const batches = await store.readBatches(ref, 0, 1_000);
    const storedEvents = batches.flatMap((batch) => deps.encryption.decryptEvents(ref, batch) ?? []);
    const principal = decrypted === undefined ? null : toPrincipal(getUserId(ref.owner), decrypted.signIn);
    const run = createActiveRun(ref, principal, storedEvents);
    const entry: ActiveRunEntry = {
      run,
      state: 'running',
      position: 0,
      releaseSlot,
      finished: notStarted,
    };
    entries.set(run.id, entry);
    run.allowStart();
    await runLifecycle(entry, run.events.lastSeq, () => lifecycle.executeQueued(entry));
  }

  return {
    find({ id, owner }) {
      const run = entries.get(id)?.run;
      return run?.owner === owner ? run : undefined;
    },
    register(run) {
      const entry: ActiveRunEntry = {
        run,
        state: 'submitting',
        position: 0,
        releaseSlot: noSlot,
        finished: notStarted,
      };
      entries.set(run.id, entry);
      return () => {
        entries.delete(run.id);
        entry.releaseSlot();
      };
    },
    start(run, prepared, releaseSlot) {
      const entry: ActiveRunEntry = {
        run,
        state: 'running',
        position: 0,
        releaseSlot,
        finished: notStarted,
      };
      entries.set(run.id, entry);
      entry.finished = runLifecycle(entry, 0, () => lifecycle.executePrepared(run, prepared));
    },
    enqueue(run, position) {
      const entry = entries.get(run.id) ?? {
        run,
        state: 'queued',
        position,
        releaseSlot: noSlot,
        finished: notStarted,
      };
      entry.state = 'queued';
      entries.set(run.id, entry);
      publishPosition(entry, position);
      entry.finished = runLifecycle(entry, 0, () => lifecycle.executeQueued(entry));
    },
    startQueued(ref, releaseSlot) {
      const entry = entries.get(ref.id);
      if (entry === undefined) {
        void trackPending(adopt(ref, releaseSlot));
        return;
      }
      entry.releaseSlot = releaseSlot;
      entry.run.allowStart();
    },
    get hasQueued() {
      return listQueued().length > 0;
    },
    publishPositions(positions) {
      for (const entry of listQueued()) publishPosition(entry, positions.get(entry.run.id));
    },
    async releaseQueued() {
      const released = listQueued();
      for (const { run } of released) run.stop('released');
      await Promise.all(released.map(({ finished }) => finished));
    },
    listLeased: () =>
      [...entries.values()].filter(({ state }) => state !== 'submitting').map(({ run }) => run),
    applyDatabaseState(id, isCancelRequested) {
      const entry = entries.get(id);
      if (entry === undefined || entry.state === 'finishing') return;
      if (isCancelRequested === undefined) entry.run.stop('taken');
      else if (isCancelRequested) entry.run.stop('requested');
    },
    async settled() {
      await Promise.all(pending);
    },
  };
}

function publishPosition(entry: ActiveRunEntry, position: number | undefined): void {
  if (position === undefined || position === entry.position || entry.state !== 'queued') return;
  entry.position = position;
  entry.run.events.append({ type: 'phase', phase: 'queued', position });
}
