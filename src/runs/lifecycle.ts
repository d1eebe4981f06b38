import { setTimeout as delay } from 'node:timers/promises';
import type { Principal } from '../http/principal.ts';
import { BYOK_TIER } from '../config/tiers.ts';
import type { ActiveWork, WorkEndReason } from '../identity/service.ts';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import type { ExitEvent } from '../runners/runner.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createEventBuffer, type EventBuffer } from './event-buffer.ts';
import { createEventWriter, type EventWriter, type EventWriterDeps } from './event-writer.ts';
import { createRunExit, type NumberedEvent, type RunExit } from './events.ts';
import type { PreparedRun, RunPreparation } from './preparation.ts';
import type { RunRef } from './run-encryption.ts';

/**
 * The states of a run in this process, and when each state follows. The dispatcher decides: it starts, enqueues,
 * claims, stops and discards. The run does the work of its states and reports its end.
 */
const TRANSITIONS = {
  submitting: {
    running: 'its row is stored, and the queue allows the start',
    queued: 'its row is stored, and it waits for its claim',
    claimed:
      'it is claimed before the response to its submission arrives, or was queued by a process that has ended',
    ended: 'its row is not stored',
  },
  queued: {
    claimed: 'the queue allows the start',
    finishing: 'it is cancelled, or its sign-in has ended',
    ended: 'it is released to other processes, or another process has taken it over',
  },
  claimed: {
    running: 'user, sign-in and server still permit the start',
    finishing: 'they do not, or the run was stopped first',
    ended: 'another process has taken it over, or the submission failed',
  },
  running: {
    finishing: 'its job has ended',
    ended: 'another process has taken it over',
  },
  finishing: {
    ended: 'its exit is stored, or is left to the lease',
  },
  ended: {},
} as const;
export type RunState = keyof typeof TRANSITIONS;

/**
 * Why this process stops a run. `taken`: another process has taken it over. `released`: this process shuts down, and
 * another process may start the queued run.
 */
export type StopReason = 'requested' | 'viewer_left' | WorkEndReason | 'taken' | 'released';

/** A run held by this process, from its acceptance until its exit is stored. */
export interface ActiveRun extends RunRef {
  readonly events: EventBuffer;
  /** The sign-in that started the run; null when the stored run does not decrypt. */
  readonly principal: Principal | null;
  readonly state: RunState;
  readonly stopReason: StopReason | undefined;
  /** Resolves when the run has ended. */
  readonly ended: Promise<void>;
  /** Runs the job of a run that is stored as running. */
  start(prepared: PreparedRun): void;
  /** Waits for the claim of a run that is stored as queued. @param position in the queue, from 1. */
  enqueue(position: number): void;
  /** Appends a `queued` event if the run is queued and its position has changed. */
  updatePosition(position: number | undefined): void;
  /** Allows a queued run to start. */
  claim(): void;
  /** Continues a claimed run of a process that has ended. */
  resume(): void;
  /** Ends a run that is not stored. */
  discard(): void;
  /** The first reason is kept. Has no effect once the exit is being stored. */
  stop: (reason: StopReason) => void;
}

export interface ActiveRunDeps extends EventWriterDeps {
  prepare: RunPreparation['prepare'];
  servers: Pick<ServerOpener, 'recordUse'>;
  activeWork: ActiveWork;
  log: Log;
  /** Called once, when the run has ended. */
  onEnd(run: ActiveRun): void;
}

/** An exit event waits up to this long for its storage, so that a viewer who receives it finds it in the history. */
const STORE_EXIT_TIMEOUT_MS = 1_000;
const FAILED_MESSAGE = 'The run failed because of an internal error. Run it again.';

/**
 * Creates a run in the state `submitting`.
 * @param storedEvents the events of the run that are already stored.
 */
export function createActiveRun(
  { id, owner }: RunRef,
  principal: Principal | null,
  deps: ActiveRunDeps,
  storedEvents: readonly NumberedEvent[] = [],
): ActiveRun {
  const { log } = deps;
  const events = createEventBuffer(storedEvents);
  const storedSeq = events.lastSeq;
  const stopping = new AbortController();
  /** Resolves when the run is claimed or stopped. */
  const leftQueue = Promise.withResolvers<undefined>();
  const ended = Promise.withResolvers<undefined>();
  let state: RunState = 'submitting';
  let stopReason: StopReason | undefined;
  let position = 0;

  function enter(next: RunState): void {
    if (!(next in TRANSITIONS[state])) throw new Error(`A run cannot change from ${state} to ${next}.`);
    state = next;
  }

  function end(): void {
    enter('ended');
    deps.onEnd(run);
    ended.resolve(undefined);
  }

  function publishPosition(next: number): void {
    if (next === position) return;
    position = next;
    events.append({ type: 'phase', phase: 'queued', position });
  }

  async function startFromQueue(): Promise<RunExit | undefined> {
    await leftQueue.promise;
    if (stopReason === 'released' || stopReason === 'taken') return undefined;
    if (stopReason !== undefined) return createRunExit('cancelled', stopMessage(stopReason));
    const prepared = await deps.prepare(run);
    return 'exit' in prepared ? prepared.exit : execute(prepared);
  }

  async function execute(prepared: PreparedRun): Promise<RunExit> {
    enter('running');
    deps.servers.recordUse(getUserId(owner), prepared.server).catch((error: unknown) => {
      log.warn({ err: error }, 'the last use of a server could not be stored');
    });
    const unregister = registerRole(prepared);
    const exit = await runJob(prepared, events, stopping.signal).finally(unregister);
    return { ...exit, message: exit.message ?? explainExit(exit, prepared.limits, stopReason) };
  }

  /** A queued run needs no role: it is checked again before it starts. */
  function registerRole({ server }: PreparedRun): () => void {
    if (principal === null || server.serverType !== 'local') return () => undefined;
    return deps.activeWork.register(principal, run.stop, { operatorRole: true });
  }

  /** @param work returns undefined when other processes continue the run. */
  function runToEnd(work: () => Promise<RunExit | undefined>): void {
    workAndStore(work)
      .catch((error: unknown) => {
        log.error({ err: error }, 'a run ended without a stored exit');
      })
      .finally(end);
  }

  async function workAndStore(work: () => Promise<RunExit | undefined>): Promise<void> {
    const writer = createEventWriter(run, storedSeq, deps);
    const unregister =
      principal === null
        ? () => undefined
        : deps.activeWork.register(principal, run.stop, { tier: BYOK_TIER });
    try {
      const exit = await work().catch((error: unknown) => {
        log.error({ err: error, run: id }, 'a run failed because of an internal error');
        return createRunExit('infrastructure', FAILED_MESSAGE, 'unverified');
      });
      if (stopReason === 'taken') writer.stop();
      else if (exit === undefined) await writer.flush();
      else await storeExit(writer, exit, unregister);
    } finally {
      unregister();
      events.close();
    }
  }

  async function storeExit(writer: EventWriter, exit: RunExit, unregister: () => void): Promise<void> {
    enter('finishing');
    const stored = writer.finish(exit);
    const isHeld = await Promise.race([stored, delay(STORE_EXIT_TIMEOUT_MS, true, { ref: false })]);
    // If another process has ended the run, its history has the exit.
    if (isHeld) events.append(exit);
    unregister();
    const { cause, code, cleanup, durationMs } = exit;
    const fields = { event: 'run_ended', run: id, cause, code, cleanup, duration_ms: durationMs };
    log.info(fields, 'a run has ended');
    await stored;
  }

  const run: ActiveRun = {
    ...{ id, owner, events, principal, ended: ended.promise, discard: end },
    get state() {
      return state;
    },
    get stopReason() {
      return stopReason;
    },
    start(prepared) {
      runToEnd(() => execute(prepared));
    },
    enqueue(first) {
      if (state === 'submitting') enter('queued');
      publishPosition(first);
      runToEnd(startFromQueue);
    },
    updatePosition(next) {
      if (state === 'queued' && next !== undefined) publishPosition(next);
    },
    claim() {
      // A run that is cancelled in the queue can be claimed while its exit is being stored.
      if (state === 'submitting' || state === 'queued') enter('claimed');
      leftQueue.resolve(undefined);
    },
    resume() {
      run.claim();
      runToEnd(startFromQueue);
    },
    stop(reason) {
      if (stopReason !== undefined || state === 'finishing' || state === 'ended') return;
      stopReason = reason;
      stopping.abort('cancelled');
      leftQueue.resolve(undefined);
    },
  };
  return run;
}

/** Runs the job and appends its events to the buffer. @returns the exit, which is not yet in the buffer. */
async function runJob(
  { server, job, limits }: PreparedRun,
  events: EventBuffer,
  signal: AbortSignal,
): Promise<RunExit> {
  let startedAtMs: number | undefined;
  let exit: ExitEvent | undefined;
  try {
    for await (const event of server.runner.run(server.target, job, limits, signal)) {
      if (event.type === 'output') events.appendOutput(event.stream, event.data);
      else if (event.type === 'exit') exit = event;
      else {
        events.append({ type: 'phase', phase: event.phase, position: null });
        if (event.phase === 'started') startedAtMs = performance.now();
      }
    }
  } finally {
    events.endOutput();
  }
  const durationMs = startedAtMs === undefined ? 0 : Math.round(performance.now() - startedAtMs);
  return { ...(exit ?? createRunExit('lost', null, 'unverified')), durationMs };
}

/** The message of an exit for which the runner has none; null if cause and code suffice. */
function explainExit(
  { cause }: RunExit,
  { timeoutMs, maxOutputBytes }: PreparedRun['limits'],
  stopReason: StopReason | undefined,
): string | null {
  switch (cause) {
    case 'timeout':
      return `The run was stopped after ${timeoutMs / 1000} s, its time limit (timeout_ms).`;
    case 'output_limit':
      return `The run was stopped because it printed more than ${maxOutputBytes} bytes, its limit (limits.max_output_bytes).`;
    case 'out_of_memory':
      return 'The program needed more memory than it may have (limits.memory_bytes).';
    case 'cancelled':
      return stopMessage(stopReason);
    case 'lost':
      return 'The connection to the run ended, so how the program ended is unknown.';
    case 'infrastructure':
      return 'The server failed. Test the server, then run this again.';
    case 'exited':
    case 'signal':
      return null;
  }
}

/** The message stored with a stopped run; null when the owner cancelled it. */
function stopMessage(reason: StopReason | undefined): string | null {
  if (reason === 'signed_out')
    return 'The run was stopped because the sign-in that started it ended. Sign in and run it again.';
  if (reason === 'tier_lowered') return 'The run was stopped because your tier no longer includes runs.';
  if (reason === 'role_removed')
    return 'The run was stopped because you no longer have the role ops-operator, which local runs need.';
  if (reason === 'draining') return 'The run was stopped because Ops Center was stopped. Run it again.';
  if (reason === 'viewer_left')
    return 'The run was cancelled because its viewer disconnected (on_disconnect).';
  return null;
}
