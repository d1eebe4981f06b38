import { getUserId } from '../lib/owner.ts';
import type { Prepared } from './executor.ts';
import type { RunExit } from './events.ts';
import { createLifeCourse, type Life, type LifeCourseDeps } from './life-course.ts';
import { createLiveRun, type LiveRun } from './live-run.ts';
import { principalOf } from './preparation.ts';
import type { RunsStore } from './runs-store.ts';
import { type RunName } from './sealed.ts';

export interface LivesDeps extends LifeCourseDeps {
  store: RunsStore;
}

/** The runs of this process, each from its acceptance until its end is stored. */
export interface Lives {
  find(run: RunName): LiveRun | undefined;
  /** Makes a run known whose row is being stored. @returns what makes it unknown again. */
  expect(run: LiveRun): () => void;
  /** @param leaveRoom called once, when the run is over. */
  start(run: LiveRun, prepared: Prepared, leaveRoom: () => void): void;
  /** Lets a run wait for its turn. @param place in the queue, from 1. */
  wait(run: LiveRun, place: number): void;
  /** The turn of a run has come, of this process or of one that is gone. */
  begin(name: RunName, leaveRoom: () => void): void;
  readonly hasWaiting: boolean;
  /** Tells those that wait where they stand. */
  tellPlaces(places: ReadonlyMap<string, number>): void;
  /** Lets go of those that wait, for other processes. */
  release(): Promise<void>;
  /** Those whose rows are this process's to keep alive. */
  stored(): RunName[];
  /** What the database says of a run. @param isToEnd undefined when it is not this process's any more. */
  hear(runId: string, isToEnd: boolean | undefined): void;
  settled(): Promise<void>;
}

const noRoom = () => undefined;
const notBegun = Promise.resolve();

/** Builds an empty register. */
export function createLives(deps: LivesDeps): Lives {
  const { store, log } = deps;
  const course = createLifeCourse(deps);
  const lives = new Map<string, Life>();
  const underWay = new Set<Promise<void>>();

  const waiting = () =>
    [...lives.values()].filter((life) => life.state === 'waiting' && life.leaveRoom === noRoom);

  function follow(life: Life, storedSeq: number, begin: () => Promise<RunExit | undefined>): Promise<void> {
    const work = course.live(life, storedSeq, begin).finally(() => {
      lives.delete(life.run.id);
      life.leaveRoom();
    });
    return keepTrack(work);
  }

  function keepTrack(work: Promise<void>): Promise<void> {
    const over = work
      .catch((error: unknown) => {
        log.error({ err: error }, 'a run was not carried to its end');
      })
      .finally(() => underWay.delete(over));
    underWay.add(over);
    return over;
  }

  /** Takes a queued run over whose process is gone, with what its viewers were told of it. */
  async function adopt(name: RunName, leaveRoom: () => void): Promise<void> {
    const row = await store.findWhole(name).catch(() => undefined);
    const opened = row && deps.seals.openRun(name, row.sealed);
    // Ended just before: its claim and its end met.
    if (row?.status !== 'running') {
      leaveRoom();
      return;
    }
    const batches = await store.readBatches(name, 0, 1_000);
    const known = batches.flatMap((batch) => deps.seals.openEvents(name, batch) ?? []);
    const principal = opened === undefined ? null : principalOf(getUserId(name.owner), opened.signIn);
    const run = createLiveRun(name, principal, known);
    const life: Life = { run, state: 'going', place: 0, leaveRoom, over: notBegun };
    lives.set(run.id, life);
    run.begin();
    await follow(life, run.journal.lastSeq, () => course.awaitTurn(life));
  }

  return {
    find({ id, owner }) {
      const run = lives.get(id)?.run;
      return run?.owner === owner ? run : undefined;
    },
    expect(run) {
      const life: Life = { run, state: 'expected', place: 0, leaveRoom: noRoom, over: notBegun };
      lives.set(run.id, life);
      return () => {
        lives.delete(run.id);
        life.leaveRoom();
      };
    },
    start(run, prepared, leaveRoom) {
      const life: Life = { run, state: 'going', place: 0, leaveRoom, over: notBegun };
      lives.set(run.id, life);
      life.over = follow(life, 0, () => course.carryOut(run, prepared));
    },
    wait(run, place) {
      const life = lives.get(run.id) ?? { run, state: 'waiting', place, leaveRoom: noRoom, over: notBegun };
      life.state = 'waiting';
      lives.set(run.id, life);
      tellPlace(life, place);
      life.over = follow(life, 0, () => course.awaitTurn(life));
    },
    begin(name, leaveRoom) {
      const life = lives.get(name.id);
      if (life === undefined) {
        void keepTrack(adopt(name, leaveRoom));
        return;
      }
      life.leaveRoom = leaveRoom;
      life.run.begin();
    },
    get hasWaiting() {
      return waiting().length > 0;
    },
    tellPlaces(places) {
      for (const life of waiting()) tellPlace(life, places.get(life.run.id));
    },
    async release() {
      const released = waiting();
      for (const { run } of released) run.stop('released');
      await Promise.all(released.map(({ over }) => over));
    },
    stored: () => [...lives.values()].filter(({ state }) => state !== 'expected').map(({ run }) => run),
    hear(id, isToEnd) {
      const life = lives.get(id);
      if (life === undefined || life.state === 'ending') return;
      if (isToEnd === undefined) life.run.stop('taken');
      else if (isToEnd) life.run.stop('requested');
    },
    async settled() {
      await Promise.all(underWay);
    },
  };
}

function tellPlace(life: Life, place: number | undefined): void {
  if (place === undefined || place === life.place || life.state !== 'waiting') return;
  life.place = place;
  life.run.journal.append({ type: 'phase', phase: 'queued', position: place });
}
