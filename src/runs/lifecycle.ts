import { setTimeout as rest } from 'node:timers/promises';
import type { ActiveWork } from '../identity/service.ts';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createRunExit, type RunExit } from './events.ts';
import { executeRun, type PreparedRun } from './executor.ts';
import { createEventWriter, type EventWriter, type EventWriterDeps } from './event-writer.ts';
import { stopMessage, type ActiveRun } from './active-run.ts';
import type { PrepareRun } from './preparation.ts';

export interface RunLifecycleDeps extends EventWriterDeps {
  prepare: PrepareRun;
  servers: Pick<ServerOpener, 'noteUse'>;
  liveWork: ActiveWork;
  log: Log;
}

/** A run of this process with its place among the others. */
export interface ActiveRunEntry {
  run: ActiveRun;
  state: 'expected' | 'waiting' | 'going' | 'ending';
  /** In the queue, from 1; 0 before it was told one. */
  position: number;
  /** Gives back the place that it takes while it goes on. */
  releaseSlot: () => void;
  finished: Promise<void>;
}

/** What happens to one run. */
export interface RunLifecycle {
  /**
   * From its first event until its end is stored.
   * @param storedSeq the last event that is stored already.
   * @param begin answers undefined when the run is left to other processes.
   */
  runToEnd(life: ActiveRunEntry, storedSeq: number, begin: () => Promise<RunExit | undefined>): Promise<void>;
  /** Runs it on its server. */
  executePrepared(run: ActiveRun, prepared: PreparedRun): Promise<RunExit>;
  /** Waits for its turn, and looks then whether it may still run. */
  executeQueued(life: ActiveRunEntry): Promise<RunExit | undefined>;
}

/** So long at most an exit waits for the history, so that whoever sees it finds it there. */
const STORE_EXIT_TIMEOUT_MS = 1_000;
const FAILED_MESSAGE = 'Something went wrong here, and the run could not be carried out. Run it again.';

export function createRunLifecycle(deps: RunLifecycleDeps): RunLifecycle {
  const { log } = deps;

  async function runToEnd(
    life: ActiveRunEntry,
    storedSeq: number,
    begin: () => Promise<RunExit | undefined>,
  ): Promise<void> {
    const { run } = life;
    const keeper = createEventWriter(run, storedSeq, deps);
    const unregister =
      run.principal === null ? () => undefined : deps.liveWork.register(run.principal, run.stop);
    try {
      const exit = await begin().catch((error: unknown) => {
        log.error({ err: error, run: run.id }, 'a run could not be carried out');
        return createRunExit('infrastructure', FAILED_MESSAGE, 'unverified');
      });
      if (run.stopReason === 'taken') keeper.stop();
      else if (exit === undefined) await keeper.flush();
      else await storeExit(life, keeper, exit, unregister);
    } finally {
      unregister();
      run.events.close();
    }
  }

  async function storeExit(
    life: ActiveRunEntry,
    keeper: EventWriter,
    exit: RunExit,
    unregister: () => void,
  ): Promise<void> {
    const { run } = life;
    life.state = 'ending';
    const stored = keeper.finish(exit);
    const isOurs = await Promise.race([stored, rest(STORE_EXIT_TIMEOUT_MS, true, { ref: false })]);
    // Of a run that somebody else has ended meanwhile, the history tells how.
    if (isOurs) run.events.append(exit);
    unregister();
    const { cause, code, cleanup, durationMs } = exit;
    const facts = { event: 'run_ended', run: run.id, cause, code, cleanup, duration_ms: durationMs };
    log.info(facts, 'a run has ended');
    await stored;
  }

  async function executePrepared(run: ActiveRun, prepared: PreparedRun): Promise<RunExit> {
    deps.servers.noteUse(getUserId(run.owner), prepared.server).catch((error: unknown) => {
      log.warn({ err: error }, 'the use of a server could not be noted');
    });
    return executeRun(run, prepared);
  }

  async function executeQueued(life: ActiveRunEntry): Promise<RunExit | undefined> {
    const { run } = life;
    await Promise.race([run.startAllowed, run.stopped]);
    if (run.stopReason === 'released' || run.stopReason === 'taken') return undefined;
    if (run.stopReason !== undefined) return createRunExit('cancelled', stopMessage(run.stopReason));
    life.state = 'going';
    const prepared = await deps.prepare(run);
    return 'exit' in prepared ? prepared.exit : executePrepared(run, prepared);
  }

  return { runToEnd, executePrepared, executeQueued };
}
