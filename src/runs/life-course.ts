import { setTimeout as rest } from 'node:timers/promises';
import type { LiveWork } from '../identity/service.ts';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerUse } from '../servers/service.ts';
import { exitWithout, type RunExit } from './events.ts';
import { execute, type Prepared } from './executor.ts';
import { createKeeper, type Keeper, type KeeperDeps } from './keeper.ts';
import { stopMessage, type LiveRun } from './live-run.ts';
import type { Prepare } from './preparation.ts';

export interface LifeCourseDeps extends KeeperDeps {
  prepare: Prepare;
  servers: Pick<ServerUse, 'noteUse'>;
  liveWork: LiveWork;
  log: Log;
}

/** A run of this process with its place among the others. */
export interface Life {
  run: LiveRun;
  state: 'expected' | 'waiting' | 'going' | 'ending';
  /** In the queue, from 1; 0 before it was told one. */
  place: number;
  /** Gives back the place that it takes while it goes on. */
  leaveRoom: () => void;
  over: Promise<void>;
}

/** What happens to one run. */
export interface LifeCourse {
  /**
   * From its first event until its end is stored.
   * @param storedSeq the last event that is stored already.
   * @param begin answers undefined when the run is left to other processes.
   */
  live(life: Life, storedSeq: number, begin: () => Promise<RunExit | undefined>): Promise<void>;
  /** Runs it on its server. */
  carryOut(run: LiveRun, prepared: Prepared): Promise<RunExit>;
  /** Waits for its turn, and looks then whether it may still run. */
  awaitTurn(life: Life): Promise<RunExit | undefined>;
}

/** So long at most an exit waits for the history, so that whoever sees it finds it there. */
const STORE_EXIT_WITHIN_MS = 1_000;
const FAILED = 'Something went wrong here, and the run could not be carried out. Run it again.';

export function createLifeCourse(deps: LifeCourseDeps): LifeCourse {
  const { log } = deps;

  async function live(
    life: Life,
    storedSeq: number,
    begin: () => Promise<RunExit | undefined>,
  ): Promise<void> {
    const { run } = life;
    const keeper = createKeeper(run, storedSeq, deps);
    const unregister =
      run.principal === null ? () => undefined : deps.liveWork.register(run.principal, run.stop);
    try {
      const exit = await begin().catch((error: unknown) => {
        log.error({ err: error, run: run.id }, 'a run could not be carried out');
        return exitWithout('infrastructure', FAILED, 'unverified');
      });
      if (run.stopReason === 'taken') keeper.leave();
      else if (exit === undefined) await keeper.handOver();
      else await end(life, keeper, exit, unregister);
    } finally {
      unregister();
      run.journal.leave();
    }
  }

  async function end(life: Life, keeper: Keeper, exit: RunExit, unregister: () => void): Promise<void> {
    const { run } = life;
    life.state = 'ending';
    const stored = keeper.finish(exit);
    const isOurs = await Promise.race([stored, rest(STORE_EXIT_WITHIN_MS, true, { ref: false })]);
    // Of a run that somebody else has ended meanwhile, the history tells how.
    if (isOurs) run.journal.append(exit);
    unregister();
    const { cause, code, cleanup, durationMs } = exit;
    const facts = { event: 'run_ended', run: run.id, cause, code, cleanup, duration_ms: durationMs };
    log.info(facts, 'a run has ended');
    await stored;
  }

  async function carryOut(run: LiveRun, prepared: Prepared): Promise<RunExit> {
    deps.servers.noteUse(getUserId(run.owner), prepared.server).catch((error: unknown) => {
      log.warn({ err: error }, 'the use of a server could not be noted');
    });
    return execute(run, prepared);
  }

  async function awaitTurn(life: Life): Promise<RunExit | undefined> {
    const { run } = life;
    await Promise.race([run.turn, run.stopped]);
    if (run.stopReason === 'released' || run.stopReason === 'taken') return undefined;
    if (run.stopReason !== undefined) return exitWithout('cancelled', stopMessage(run.stopReason));
    life.state = 'going';
    const prepared = await deps.prepare(run);
    return 'exit' in prepared ? prepared.exit : carryOut(run, prepared);
  }

  return { live, carryOut, awaitTurn };
}
