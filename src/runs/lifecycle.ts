import { setTimeout as delay } from 'node:timers/promises';
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
  servers: Pick<ServerOpener, 'recordUse'>;
  activeWork: ActiveWork;
  log: Log;
}

/** A run of this process with its position in the queue and its slot. */
export interface ActiveRunEntry {
  run: ActiveRun;
  state: 'submitting' | 'queued' | 'running' | 'finishing';
  /** Position in the queue, from 1; 0 before the first one is known. */
  position: number;
  /** Frees the slot that the run takes while it is under way. */
  releaseSlot: () => void;
  finished: Promise<void>;
}

/** The steps of one run. */
export interface RunLifecycle {
  /**
   * Carries a run from its first event until its exit is stored.
   * @param storedSeq number of the last stored event.
   * @param work returns undefined when other processes continue the run.
   */
  runToEnd(entry: ActiveRunEntry, storedSeq: number, work: () => Promise<RunExit | undefined>): Promise<void>;
  /** Runs the job on its server. */
  executePrepared(run: ActiveRun, prepared: PreparedRun): Promise<RunExit>;
  /** Waits until the queue allows the start, checks that the run is still permitted, and runs it. */
  executeQueued(entry: ActiveRunEntry): Promise<RunExit | undefined>;
}

/** An exit event waits up to this long for its storage, so that a viewer who receives it finds it in the history. */
const STORE_EXIT_TIMEOUT_MS = 1_000;
const FAILED_MESSAGE = 'The run failed because of an internal error. Run it again.';

export function createRunLifecycle(deps: RunLifecycleDeps): RunLifecycle {
  const { log } = deps;

  async function runToEnd(
    entry: ActiveRunEntry,
    storedSeq: number,
    work: () => Promise<RunExit | undefined>,
  ): Promise<void> {
    const { run } = entry;
    const writer = createEventWriter(run, storedSeq, deps);
    const unregister =
      run.principal === null ? () => undefined : deps.activeWork.register(run.principal, run.stop);
    try {
      const exit = await work().catch((error: unknown) => {
        log.error({ err: error, run: run.id }, 'a run failed because of an internal error');
        return createRunExit('infrastructure', FAILED_MESSAGE, 'unverified');
      });
      if (run.stopReason === 'taken') writer.stop();
      else if (exit === undefined) await writer.flush();
      else await storeExit(entry, writer, exit, unregister);
    } finally {
      unregister();
      run.events.close();
    }
  }

  async function storeExit(
    entry: ActiveRunEntry,
    writer: EventWriter,
    exit: RunExit,
    unregister: () => void,
  ): Promise<void> {
    const { run } = entry;
    entry.state = 'finishing';
    const stored = writer.finish(exit);
    const isHeld = await Promise.race([stored, delay(STORE_EXIT_TIMEOUT_MS, true, { ref: false })]);
    // If another process has ended the run, its history has the exit.
    if (isHeld) run.events.append(exit);
    unregister();
    const { cause, code, cleanup, durationMs } = exit;
    const fields = { event: 'run_ended', run: run.id, cause, code, cleanup, duration_ms: durationMs };
    log.info(fields, 'a run has ended');
    await stored;
  }

  async function executePrepared(run: ActiveRun, prepared: PreparedRun): Promise<RunExit> {
    deps.servers.recordUse(getUserId(run.owner), prepared.server).catch((error: unknown) => {
      log.warn({ err: error }, 'the last use of a server could not be stored');
    });
    return executeRun(run, prepared);
  }

  async function executeQueued(entry: ActiveRunEntry): Promise<RunExit | undefined> {
    const { run } = entry;
    await Promise.race([run.startAllowed, run.stopped]);
    if (run.stopReason === 'released' || run.stopReason === 'taken') return undefined;
    if (run.stopReason !== undefined) return createRunExit('cancelled', stopMessage(run.stopReason));
    entry.state = 'running';
    const prepared = await deps.prepare(run);
    return 'exit' in prepared ? prepared.exit : executePrepared(run, prepared);
  }

  return { runToEnd, executePrepared, executeQueued };
}
