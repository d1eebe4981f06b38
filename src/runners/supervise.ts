import { isAppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { ExitEvent, Job, Limits, RunEvent, Runner, StopCause, Target } from './runner.ts';

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
interface Watch {
  signal: AbortSignal;
  begin: () => void;
  /** Does nothing once the run has ended: by then the ids of its processes may be others'. */
  stop: (cause: StopCause) => void;
  /** Lets go of the timer and the caller's signal. */
  end: () => void;
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
      const watch = createWatch(limits.timeoutMs, signal);
      const events = superviseRun(runner, { target, job, limits, watch }, options);
      const leave = events.return.bind(events);
      // A read that is under way would hold `return` back until the program says something.
      events.return = (value) => {
        watch.stop('cancelled');
        return leave(value);
      };
      return events;
    },
  };
}

/** Nothing is held before the first read: a generator that nobody reads is never ended either. */
function createWatch(timeoutMs: number, caller: AbortSignal): Watch {
  const controller = new AbortController();
  let over = false;
  const stop = (cause: StopCause) => {
    if (!over) controller.abort(cause);
  };
  const follow = () => {
    stop(stopCause(caller.reason));
  };
  let timer: NodeJS.Timeout | undefined;
  return {
    signal: controller.signal,
    stop,
    begin() {
      if (caller.aborted) follow();
      caller.addEventListener('abort', follow);
      timer = setTimeout(stop, Math.min(timeoutMs, MAX_TIMER_MS), 'timeout');
    },
    end() {
      over = true;
      clearTimeout(timer);
      caller.removeEventListener('abort', follow);
    },
  };
}

interface Run<Config> {
  target: Target<Config>;
  job: Job;
  limits: Limits;
  watch: Watch;
}

async function* superviseRun<Config>(
  runner: Runner<Config>,
  { target, job, limits, watch }: Run<Config>,
  options: SuperviseOptions,
): AsyncGenerator<RunEvent, void> {
  watch.begin();
  try {
    if (watch.signal.aborted) {
      yield ended(stopCause(watch.signal.reason), 'verified');
      return;
    }
    const source = runner.run(target, job, limits, watch.signal);
    yield* withinLimit(untilExit(source, watch, options), limits.maxOutputBytes, watch.stop);
  } finally {
    watch.end();
  }
}

/** Passes on what the limit leaves room for; the first byte beyond it stops the run. */
async function* withinLimit(
  events: AsyncGenerator<RunEvent, void>,
  maxBytes: number,
  stop: (cause: StopCause) => void,
): AsyncGenerator<RunEvent, void> {
  let leftBytes = maxBytes;
  let cut = false;
  for await (const event of events) {
    if (event.type === 'output') {
      const data = event.data.subarray(0, leftBytes);
      leftBytes -= data.length;
      if (data.length < event.data.length) {
        cut = true;
        stop('output_limit');
      }
      if (data.length > 0) yield { ...event, data };
    } else yield cut && event.type === 'exit' ? asCut(event) : event;
  }
}

/** A program that ended by itself just then has lost output all the same: its end must not look complete. */
function asCut(exit: ExitEvent): ExitEvent {
  return exit.cause === 'exited' || exit.cause === 'signal' ? { ...exit, cause: 'output_limit' } : exit;
}

/** Reads a runner up to its `exit`, or makes one up for a runner that fails, falls silent or leaves it out. */
async function* untilExit(
  source: AsyncGenerator<RunEvent, void>,
  watch: Watch,
  { log, stopGraceMs = STOP_GRACE_MS }: SuperviseOptions,
): AsyncGenerator<RunEvent, void> {
  const read = createPatientReader(source, watch.signal, stopGraceMs);
  let exit: ExitEvent | undefined;
  try {
    while (exit === undefined) {
      const event = await read();
      if (event.type === 'exit') exit = event;
      else yield event;
    }
  } catch (error) {
    log.error({ err: error }, 'a runner failed');
    exit = failed(error, watch.signal);
  } finally {
    if (exit === undefined) await abandon(read, watch);
    else source.return().catch(() => undefined);
  }
  watch.end();
  yield exit;
}

type Read = () => Promise<RunEvent>;

/** The reader has left: what the runner still sends is dropped until it is done. */
async function abandon(read: Read, watch: Watch): Promise<void> {
  watch.stop('cancelled');
  try {
    while ((await read()).type !== 'exit');
  } catch {
    // Nobody is left to be told.
  }
}

/**
 * Reads one event at a time. Once the signal has ended, all waiting together takes `graceMs` at most: the time
 * in which the reader does something else does not count.
 */
function createPatientReader(
  source: AsyncGenerator<RunEvent, void>,
  signal: AbortSignal,
  graceMs: number,
): Read {
  let leftMs = graceMs;
  return () =>
    new Promise<RunEvent>((resolve, reject) => {
      let timer: NodeJS.Timeout | undefined;
      let sinceMs = 0;
      const giveUp = () => {
        resolve(ended(stopCause(signal.reason), 'unverified', NOT_CONFIRMED));
      };
      const hurry = () => {
        sinceMs = performance.now();
        timer = setTimeout(giveUp, Math.max(0, leftMs));
      };
      if (signal.aborted) hurry();
      else signal.addEventListener('abort', hurry);
      source
        .next()
        .then((result) => {
          resolve(result.done === true ? ended('lost', 'unverified', NO_END) : result.value);
        }, reject)
        .finally(() => {
          signal.removeEventListener('abort', hurry);
          clearTimeout(timer);
          if (timer !== undefined) leftMs -= performance.now() - sinceMs;
        });
    });
}

const NOT_CONFIRMED =
  'The server did not confirm in time that the run has ended. Look there for what is left of it.';
const NO_END = 'The connection to the run ended, and nobody could tell how the program did.';
const FAILED = 'The server failed, or what connects to it did. Test the server, then run this again.';

function failed(error: unknown, signal: AbortSignal): ExitEvent {
  if (signal.aborted) return ended(stopCause(signal.reason), 'unverified', NOT_CONFIRMED);
  return ended('infrastructure', 'unverified', isAppError(error) ? error.detail : FAILED);
}

function ended(
  cause: ExitEvent['cause'],
  cleanup: ExitEvent['cleanup'],
  message: string | null = null,
): ExitEvent {
  return { type: 'exit', cause, code: null, signal: null, cleanup, message };
}

const STOP_CAUSES: readonly unknown[] = ['timeout', 'cancelled', 'output_limit'] satisfies StopCause[];

/** A signal that was ended with anything else (a closing server, a viewer that left) cancels. */
function stopCause(reason: unknown): StopCause {
  return STOP_CAUSES.includes(reason) ? (reason as StopCause) : 'cancelled';
}
