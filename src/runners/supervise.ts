import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, StopCause, TargetServer } from './runner.ts';

/** How long a runner may take, after it was told to stop, before its run is given up as not verified. */
const STOP_GRACE_MS = 30_000;
/** The most that `setTimeout` takes; beyond it, it fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface SuperviseOptions {
  log: Log;
  /** Time that is spent waiting for the runner; a reader that stalls does not use it up. */
  stopGraceMs?: number;
}

/** What can stop one run: the caller, the clock, and what is found in its output. */
interface StopControl {
  signal: AbortSignal;
  start: () => void;
  /** Does nothing once the run has ended: by then the ids of its processes may be others'. */
  stop: (cause: StopCause) => void;
  /** Lets go of the timer and the caller's signal. */
  close: () => void;
}

/**
 * Puts around a runner what every runner has in common: the time-out (counted from the first read on, not from
 * the queue), the output limit, and the promises about how a run ends. Whatever the runner does, there is
 * exactly one `exit`, it comes last, and no more than `maxOutputBytes` come before it. Leaving the generator
 * early cancels the run, and waits until the runner has cleaned up.
 */
export function supervise<Config>(runner: Runner<Config>, options: SuperviseOptions): Runner<Config> {
  return {
    ...runner,
    run(target, job, limits, signal) {
      const control = createStopControl(limits.timeoutMs, signal);
      const events = superviseRun(runner, { target, job, limits, control }, options);
      const returnEvents = events.return.bind(events);
      // A read that is under way would hold `return` back until the program says something.
      events.return = (value) => {
        control.stop('cancelled');
        return returnEvents(value);
      };
      return events;
    },
  };
}

/** Nothing is held before the first read: a generator that nobody reads is never ended either. */
function createStopControl(timeoutMs: number, caller: AbortSignal): StopControl {
  const controller = new AbortController();
  let isClosed = false;
  const stop = (cause: StopCause) => {
    if (!isClosed) controller.abort(cause);
  };
  const onCallerAbort = () => {
    stop(toStopCause(caller.reason));
  };
  let timer: NodeJS.Timeout | undefined;
  return {
    signal: controller.signal,
    stop,
    start() {
      if (caller.aborted) onCallerAbort();
      caller.addEventListener('abort', onCallerAbort);
      timer = setTimeout(stop, Math.min(timeoutMs, MAX_TIMER_MS), 'timeout');
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
      caller.removeEventListener('abort', onCallerAbort);
    },
  };
}

interface SupervisedRun<Config> {
  target: TargetServer<Config>;
  job: Job;
  limits: Limits;
  control: StopControl;
}

async function* superviseRun<Config>(
  runner: Runner<Config>,
  { target, job, limits, control }: SupervisedRun<Config>,
  options: SuperviseOptions,
): AsyncGenerator<RunEvent, void> {
  control.start();
  try {
    if (control.signal.aborted) {
      yield createExit(toStopCause(control.signal.reason), 'verified');
      return;
    }
    const source = runner.run(target, job, limits, control.signal);
    yield* limitOutput(readUntilExit(source, control, options), limits.maxOutputBytes, control.stop);
  } finally {
    control.close();
  }
}

/** Passes on what the limit leaves room for; the first byte beyond it stops the run. */
async function* limitOutput(
  events: AsyncGenerator<RunEvent, void>,
  maxBytes: number,
  stop: (cause: StopCause) => void,
): AsyncGenerator<RunEvent, void> {
  let remainingBytes = maxBytes;
  let isTruncated = false;
  for await (const event of events) {
    if (event.type === 'output') {
      const data = event.data.subarray(0, remainingBytes);
      remainingBytes -= data.length;
      if (data.length < event.data.length) {
        isTruncated = true;
        stop('output_limit');
      }
      if (data.length > 0) yield { ...event, data };
    } else yield isTruncated && event.type === 'exit' ? toTruncatedExit(event) : event;
  }
}

/** A program that ended by itself just then has lost output all the same: its end must not look complete. */
function toTruncatedExit(exit: ExitEvent): ExitEvent {
  return exit.cause === 'exited' || exit.cause === 'signal' ? { ...exit, cause: 'output_limit' } : exit;
}

/** Reads a runner up to its `exit`, or makes one up for a runner that fails, falls silent or leaves it out. */
async function* readUntilExit(
  source: AsyncGenerator<RunEvent, void>,
  control: StopControl,
  { log, stopGraceMs = STOP_GRACE_MS }: SuperviseOptions,
): AsyncGenerator<RunEvent, void> {
  const readEvent = createGraceReader(source, control.signal, stopGraceMs);
  let exit: ExitEvent | undefined;
  try {
    while (exit === undefined) {
      const event = await readEvent();
      if (event.type === 'exit') exit = event;
      else yield event;
    }
  } catch (error) {
    log.error({ err: error }, 'a runner failed');
    exit = failureExit(error, control.signal);
  } finally {
    if (exit === undefined) await cancelAndDrain(readEvent, control);
    else source.return().catch(() => undefined);
  }
  control.close();
  yield exit;
}

type ReadEvent = () => Promise<RunEvent>;

/** The reader has left: what the runner still sends is dropped until it is done. */
async function cancelAndDrain(readEvent: ReadEvent, control: StopControl): Promise<void> {
  control.stop('cancelled');
  try {
    while ((await readEvent()).type !== 'exit');
  } catch {
    // Nobody is left to be told.
  }
}

/**
 * Reads one event at a time. Once the signal has ended, all waiting together takes `graceMs` at most: the time
 * in which the reader does something else does not count.
 */
function createGraceReader(
  source: AsyncGenerator<RunEvent, void>,
  signal: AbortSignal,
  graceMs: number,
): ReadEvent {
  let remainingMs = graceMs;
  return () =>
    new Promise<RunEvent>((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      let startedMs = 0;
      const onGraceOver = () => {
        resolve(createExit(toStopCause(signal.reason), 'unverified', NOT_CONFIRMED));
      };
      const startGrace = () => {
        startedMs = performance.now();
        timer = setTimeout(onGraceOver, Math.max(0, remainingMs));
      };
      if (signal.aborted) startGrace();
      else signal.addEventListener('abort', startGrace);
      source
        .next()
        .then((result) => {
          resolve(result.done === true ? createExit('lost', 'unverified', NO_EXIT) : result.value);
        }, reject)
        .finally(() => {
          signal.removeEventListener('abort', startGrace);
          clearTimeout(timer);
          if (timer !== undefined) remainingMs -= performance.now() - startedMs;
        });
    });
}

const NOT_CONFIRMED =
  'The server did not confirm in time that the run has ended. Look there for what is left of it.';
const NO_EXIT = 'The connection to the run ended, and nobody could tell how the program did.';
const RUNNER_FAILED = 'The server failed, or what connects to it did. Test the server, then run this again.';

function failureExit(error: unknown, signal: AbortSignal): ExitEvent {
  if (signal.aborted) return createExit(toStopCause(signal.reason), 'unverified', NOT_CONFIRMED);
  return createExit('infrastructure', 'unverified', isAppError(error) ? error.detail : RUNNER_FAILED);
}

function createExit(
  cause: ExitEvent['cause'],
  cleanup: ExitEvent['cleanup'],
  message: string | null = null,
): ExitEvent {
  return { type: 'exit', cause, code: null, signal: null, cleanup, message };
}

const STOP_CAUSES: readonly unknown[] = ['timeout', 'cancelled', 'output_limit'] satisfies StopCause[];

/** A signal that was ended with anything else (a closing server, a viewer that left) cancels. */
function toStopCause(reason: unknown): StopCause {
  return STOP_CAUSES.includes(reason) ? (reason as StopCause) : 'cancelled';
}
