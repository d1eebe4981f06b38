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

/** The runs of this process, each from its acceptance until its end is stored. */
export interface ActiveRuns {
  find(run: RunRef): ActiveRun | undefined;
  /** Makes a run known whose row is being stored. @returns what makes it unknown again. */
  register(run: ActiveRun): () => void;
  /** @param leaveRoom called once, when the run is over. */
  start(run: ActiveRun, prepared: PreparedRun, leaveRoom: () => void): void;
  /** Lets a run wait for its turn. @param place in the queue, from 1. */
  enqueue(run: ActiveRun, place: number): void;
  /** The turn of a run has come, of this process or of one that is gone. */
  startQueued(name: RunRef, leaveRoom: () => void): void;
  readonly hasQueued: boolean;
  /** Tells those that wait where they stand. */
  publishPositions(places: ReadonlyMap<string, number>): void;
  /** Lets go of those that wait, for other processes. */
  releaseQueued(): Promise<void>;
  /** Those whose rows are this process's to keep alive. */
  listLeased(): RunRef[];
  /** What the database says of a run. @param isToEnd undefined when it is not this process's any more. */
  applyDatabaseState(runId: string, isToEnd: boolean | undefined): void;
  settled(): Promise<void>;
}

const noSlot = () => undefined;
const notStarted = Promise.resolve();

/** Builds an empty register. */
export function createActiveRuns(deps: ActiveRunsDeps): ActiveRuns {
  const { store, log } = deps;
  const lifecycle = createRunLifecycle(deps);
  const entries = new Map<string, ActiveRunEntry>();
  const pending = new Set<Promise<void>>();

  const listQueued = () =>
    [...entries.values()].filter((life) => life.state === 'waiting' && life.releaseSlot === noSlot);

  function runLifecycle(
    life: ActiveRunEntry,
    storedSeq: number,
    begin: () => Promise<RunExit | undefined>,
  ): Promise<void> {
    const work = lifecycle.runToEnd(life, storedSeq, begin).finally(() => {
      entries.delete(life.run.id);
      life.releaseSlot();
    });
    return trackPending(work);
  }

  function trackPending(work: Promise<void>): Promise<void> {
    const over = work
      .catch((error: unknown) => {
        log.error({ err: error }, 'a run was not carried to its end');
      })
      .finally(() => pending.delete(over));
    pending.add(over);
    return over;
  }

  /** Takes a queued run over whose process is gone, with what its viewers were told of it. */
  async function adopt(name: RunRef, leaveRoom: () => void): Promise<void> {
    const row = await store.findWhole(name).catch(() => undefined);
    const opened = row && deps.seals.decryptRun(name, row.sealed);
    // Ended just before: its claim and its end met.
    if (row?.status !== 'running') {
      leaveRoom();
      return;
    }
    const batches = await store.readBatches(name, 0, 1_000);
    const known = batches.flatMap((batch) => deps.seals.decryptEvents(name, batch) ?? []);
    const principal = opened === undefined ? null : toPrincipal(getUserId(name.owner), opened.signIn);
    const run = createActiveRun(name, principal, known);
    const life: ActiveRunEntry = {
      run,
      state: 'going',
      position: 0,
      releaseSlot: leaveRoom,
      finished: notStarted,
    };
    entries.set(run.id, life);
    run.allowStart();
    await runLifecycle(life, run.events.lastSeq, () => lifecycle.executeQueued(life));
  }

  return {
    find({ id, owner }) {
      const run = entries.get(id)?.run;
      return run?.owner === owner ? run : undefined;
    },
    register(run) {
      const life: ActiveRunEntry = {
        run,
        state: 'expected',
        position: 0,
        releaseSlot: noSlot,
        finished: notStarted,
      };
      entries.set(run.id, life);
      return () => {
        entries.delete(run.id);
        life.releaseSlot();
      };
    },
    start(run, prepared, leaveRoom) {
      const life: ActiveRunEntry = {
        run,
        state: 'going',
        position: 0,
        releaseSlot: leaveRoom,
        finished: notStarted,
      };
      entries.set(run.id, life);
      life.finished = runLifecycle(life, 0, () => lifecycle.executePrepared(run, prepared));
    },
    enqueue(run, place) {
      const life = entries.get(run.id) ?? {
        run,
        state: 'waiting',
        position: place,
        releaseSlot: noSlot,
        finished: notStarted,
      };
      life.state = 'waiting';
      entries.set(run.id, life);
      publishPosition(life, place);
      life.finished = runLifecycle(life, 0, () => lifecycle.executeQueued(life));
    },
    startQueued(name, leaveRoom) {
      const life = entries.get(name.id);
      if (life === undefined) {
        void trackPending(adopt(name, leaveRoom));
        return;
      }
      life.releaseSlot = leaveRoom;
      life.run.allowStart();
    },
    get hasQueued() {
      return listQueued().length > 0;
    },
    publishPositions(places) {
      for (const life of listQueued()) publishPosition(life, places.get(life.run.id));
    },
    async releaseQueued() {
      const released = listQueued();
      for (const { run } of released) run.stop('released');
      await Promise.all(released.map(({ finished: over }) => over));
    },
    listLeased: () => [...entries.values()].filter(({ state }) => state !== 'expected').map(({ run }) => run),
    applyDatabaseState(id, isToEnd) {
      const life = entries.get(id);
      if (life === undefined || life.state === 'ending') return;
      if (isToEnd === undefined) life.run.stop('taken');
      else if (isToEnd) life.run.stop('requested');
    },
    async settled() {
      await Promise.all(pending);
    },
  };
}

function publishPosition(life: ActiveRunEntry, place: number | undefined): void {
  if (place === undefined || place === life.position || life.state !== 'waiting') return;
  life.position = place;
  life.run.events.append({ type: 'phase', phase: 'queued', position: place });
}
