import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, StopCause, TargetServer } from './runner.ts';

/** Time between the stop signal and giving up a run as unverified. */
const STOP_GRACE_MS = 30_000;
/** Maximum delay of `setTimeout`; a longer one fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface SuperviseOptions {
  log: Log;
  /** Counts only time spent waiting for the runner, not for the reader. */
  stopGraceMs?: number;
}

/** Stops one run: by the caller's signal, the timeout, or the output limit. */
interface StopControl {
  signal: AbortSignal;
  start: () => void;
  /** Does nothing after the run has ended, because its process ids may have been reused. */
  stop: (cause: StopCause) => void;
  /** Removes the timer and the listener on the caller's signal. */
  close: () => void;
}

/**
 * Adds what all runners have in common: the timeout (from the first read, not from queueing), the output
 * limit, and the guarantees about the end of a run. There is exactly one `exit`, it is the last event, and at
 * most `maxOutputBytes` precede it. Leaving the generator early cancels the run and waits for the runner's
 * cleanup.
 */
export function supervise<Config>(runner: Runner<Config>, options: SuperviseOptions): Runner<Config> {
  return {
    ...runner,
    run(target, job, limits, signal) {
      const control = createStopControl(limits.timeoutMs, signal);
      const events = superviseRun(runner, { target, job, limits, control }, options);
      const returnEvents = events.return.bind(events);
      // A pending read would delay `return` until the program prints something.
      events.return = (value) => {
        control.stop('cancelled');
        return returnEvents(value);
      };
      return events;
    },
  };
}

/** Allocates nothing before the first read, because a generator that is never read is never closed either. */
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

/** Passes output up to the limit. The first byte beyond it stops the run. */
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

/** Output is lost even if the program ended by itself at that moment, so its end must not look complete. */
function toTruncatedExit(exit: ExitEvent): ExitEvent {
  return exit.cause === 'exited' || exit.cause === 'signal' ? { ...exit, cause: 'output_limit' } : exit;
}

/**
 * Reads events up to `exit`. Creates an `exit` for a runner that throws, stops responding, or ends without
 * one.
 */
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

/** The reader has left. Discards the remaining events until the runner is done. */
async function cancelAndDrain(readEvent: ReadEvent, control: StopControl): Promise<void> {
  control.stop('cancelled');
  try {
    while ((await readEvent()).type !== 'exit');
  } catch {
    // No reader is left to report to.
  }
}

/**
 * Reads one event at a time. After the signal is aborted, all waiting together takes at most `graceMs`. Time
 * between reads does not count.
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
  'The server did not confirm in time that the run has ended. Check the server for what is left of it.';
const NO_EXIT = 'The connection to the run ended, so how the program ended is unknown.';
const RUNNER_FAILED = 'The server or the connection to it failed. Test the server, then run this again.';

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

/** Any other abort reason (server shutdown, a viewer that left) counts as a cancel. */
function toStopCause(reason: unknown): StopCause {
  return STOP_CAUSES.includes(reason) ? (reason as StopCause) : 'cancelled';
}
