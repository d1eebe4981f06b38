import { setTimeout as rest } from 'node:timers/promises';
import type { ExitEvent, Job, Limits, RunEvent, StopCause, Target } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { judge, none, type Ending, type Verdict } from './exit.ts';
import { explain } from './explain.ts';
import { watchEngine } from './heartbeat.ts';
import { readOutput } from './output.ts';
import { writeRemoval, writeScript, type ScriptRecord } from './script.ts';
import { detach, removeAndLook, removeRun, type Session } from './session.ts';

/** Where a job runs. */
export interface Place {
  engine: Engine;
  target: Target<DockerConfig>;
  /** A container of this place that waits for a job, or a new one. @throws what `openSession` throws. */
  open(limits: Limits, runId: string, signal: AbortSignal): Promise<Session>;
  /** For a removal of files, beside the job's own container. */
  openPlain(runId: string, signal: AbortSignal): Promise<Session>;
  /** Called once when the program has been seen to start. */
  onStarted(): void;
  heartbeatMs: number;
}

type Cleanup = ExitEvent['cleanup'];

/** The engine says that a container has ended about when its output ends. */
const END_MS = 10_000;
const REMOVAL_MS = 15_000;
const NOT_STARTED = 'The connection to the engine broke off before the program had started.';
const LOST =
  'The connection to the engine broke off while the program ran, and nobody could tell how it ended.';

/** Runs a job in a container of its own. */
export async function* runJob(
  place: Place,
  job: Job,
  limits: Limits,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  let session: Session;
  try {
    session = await place.open(limits, job.runId, signal);
  } catch (error) {
    const cleanup = await removeRun(place.engine, place.target, job.runId);
    const verdict = signal.aborted
      ? none(signal.reason as StopCause)
      : none('infrastructure', explain(error));
    yield { type: 'exit', ...verdict, cleanup };
    return;
  }
  yield* attend(place, session, job, signal);
}

/** Sends a job into a container, and stays until nothing is left of it. */
async function* attend(
  place: Place,
  session: Session,
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  const { engine, target } = place;
  const workdir = job.workdir ?? target.workspacePath;
  const script = writeScript(job, workdir, target.config.environment ?? {});
  const records = new Set<ScriptRecord>();
  let removal: Promise<Cleanup> | undefined;
  const remove = () => (removal ??= removeWithFiles(place, session, job, records));
  const onAbort = () => {
    // Not left to the reader below, which waits for whoever reads the events.
    void remove();
    session.stream.destroy(new Error('stopped'));
  };
  const stopWatching = watchEngine(engine, place.heartbeatMs, () => {
    session.stream.destroy(new Error('the engine has fallen silent'));
  });
  let verdict: Verdict;
  let hasStarted = false;
  try {
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    else session.stream.write(script.text);
    for await (const event of readOutput(session, script.mark, records)) {
      if (event.type === 'phase') place.onStarted();
      hasStarted = true;
      yield event;
    }
    verdict = await endOf(engine, session, { ...script, records });
  } catch {
    verdict = hasStarted ? none('lost', LOST) : none('infrastructure', NOT_STARTED);
  } finally {
    signal.removeEventListener('abort', onAbort);
    stopWatching();
    detach(session);
    await remove();
  }
  if (signal.aborted) verdict = none(signal.reason as StopCause);
  yield { type: 'exit', ...verdict, cleanup: await remove() };
}

/** How the program ended, once its output has. @throws when nobody can tell. */
export async function endOf(
  engine: Engine,
  session: Session,
  said: Pick<Ending, 'records' | 'interpreter'>,
): Promise<Verdict> {
  const late = new AbortController();
  const tooLate = rest(END_MS, undefined, { signal: late.signal, ref: false }).then(() => {
    throw new Error('the output has ended, and the container has not');
  });
  try {
    const code = await Promise.race([codeOf(engine, session), tooLate]);
    const state = await engine.inspect(session.id);
    return judge({ ...said, code, wasOomKilled: state?.wasOomKilled ?? false });
  } finally {
    tooLate.catch(() => undefined);
    late.abort();
  }
}

/** What lies between may have closed the silent connection that waits for the end: then it is asked for again. */
async function codeOf(engine: Engine, session: Session): Promise<number> {
  try {
    return await session.waiting.code;
  } catch {
    const again = await engine.wait(session.id, 'not-running');
    return await again.code;
  }
}

/** Ends a run's container; and where the script could not do it any more, removes its files from the user's folder. */
async function removeWithFiles(
  place: Place,
  session: Session,
  job: Job,
  records: ReadonlySet<ScriptRecord>,
): Promise<Cleanup> {
  const cleanup = await removeAndLook(place.engine, session.id);
  const workdir = job.workdir ?? place.target.workspacePath;
  const hasCleaned = [...records].some((record) => record !== 'start');
  if (workdir === null || hasCleaned || cleanup === 'unverified') return cleanup;
  // Before its start it may have met files that are the user's own: those are not touched.
  if (!records.has('start')) return 'unverified';
  return await removeFiles(place, job, workdir).catch(() => 'unverified' as const);
}

async function removeFiles(place: Place, job: Job, workdir: string): Promise<Cleanup> {
  const signal = AbortSignal.timeout(REMOVAL_MS);
  const session = await place.openPlain(job.runId, signal);
  try {
    const script = writeRemoval(job, workdir);
    const onLate = () => session.stream.destroy(new Error('too slow'));
    signal.addEventListener('abort', onLate, { once: true });
    session.stream.write(script.text);
    const records = new Set<ScriptRecord>();
    for await (const _event of readOutput(session, script.mark, records));
    const { cause, code } = await endOf(place.engine, session, { ...script, records });
    return cause === 'exited' && code === 0 ? 'verified' : 'unverified';
  } finally {
    detach(session);
    await removeAndLook(place.engine, session.id);
  }
}
