import { setTimeout as rest } from 'node:timers/promises';
import type { ExitEvent, Job, Limits, RunEvent, StopCause, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { toDockerExit, exitWithoutCode, type ContainerEnd, type DockerExit } from './exit.ts';
import { explainDockerError } from './error-messages.ts';
import { monitorEngine } from './heartbeat.ts';
import { readDockerOutput } from './output.ts';
import { writeRemovalScript, writeScript, type ScriptMarker } from './script.ts';
import { detachSession, removeContainer, removeRunContainers, type DockerSession } from './session.ts';

/** Where a job runs. */
export interface DockerRunDeps {
  engine: Engine;
  target: TargetServer<DockerConfig>;
  /** A container of this place that waits for a job, or a new one. @throws what `openSession` throws. */
  openJobSession(limits: Limits, runId: string, signal: AbortSignal): Promise<DockerSession>;
  /** For a removal of files, beside the job's own container. */
  openCleanupSession(runId: string, signal: AbortSignal): Promise<DockerSession>;
  /** Called once when the program has been seen to start. */
  onStarted(): void;
  heartbeatMs: number;
}

type Cleanup = ExitEvent['cleanup'];

/** The engine says that a container has ended about when its output ends. */
const EXIT_TIMEOUT_MS = 10_000;
const FILE_REMOVAL_TIMEOUT_MS = 15_000;
const NOT_STARTED = 'The connection to the engine broke off before the program had started.';
const CONNECTION_LOST =
  'The connection to the engine broke off while the program ran, and nobody could tell how it ended.';

/** Runs a job in a container of its own. */
export async function* runDockerJob(
  deps: DockerRunDeps,
  job: Job,
  limits: Limits,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  yield { type: 'phase', phase: 'preparing' };
  let session: DockerSession;
  try {
    session = await deps.openJobSession(limits, job.runId, signal);
  } catch (error) {
    const cleanup = await removeRunContainers(deps.engine, deps.target, job.runId);
    const exit = signal.aborted
      ? exitWithoutCode(signal.reason as StopCause)
      : exitWithoutCode('infrastructure', explainDockerError(error));
    yield { type: 'exit', ...exit, cleanup };
    return;
  }
  yield* runInSession(deps, session, job, signal);
}

/** Sends a job into a container, and stays until nothing is left of it. */
async function* runInSession(
  deps: DockerRunDeps,
  session: DockerSession,
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  const { engine, target } = deps;
  const workdir = job.workdir ?? target.workspacePath;
  const script = writeScript(job, workdir, target.config.environment ?? {});
  const markers = new Set<ScriptMarker>();
  let cleanup: Promise<Cleanup> | undefined;
  const remove = () => (cleanup ??= removeContainerAndFiles(deps, session, job, markers));
  const onAbort = () => {
    // Not left to the reader below, which waits for whoever reads the events.
    void remove();
    session.stream.destroy(new Error('stopped'));
  };
  const stopWatching = monitorEngine(engine, deps.heartbeatMs, () => {
    session.stream.destroy(new Error('the engine has fallen silent'));
  });
  let exit: DockerExit;
  let hasStarted = false;
  try {
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    else session.stream.write(script.text);
    for await (const event of readDockerOutput(session, script.markerPrefix, markers)) {
      if (event.type === 'phase') deps.onStarted();
      hasStarted = true;
      yield event;
    }
    exit = await readDockerExit(engine, session, { ...script, markers });
  } catch {
    exit = hasStarted
      ? exitWithoutCode('lost', CONNECTION_LOST)
      : exitWithoutCode('infrastructure', NOT_STARTED);
  } finally {
    signal.removeEventListener('abort', onAbort);
    stopWatching();
    detachSession(session);
    await remove();
  }
  if (signal.aborted) exit = exitWithoutCode(signal.reason as StopCause);
  yield { type: 'exit', ...exit, cleanup: await remove() };
}

/** How the program ended, once its output has. @throws when nobody can tell. */
export async function readDockerExit(
  engine: Engine,
  session: DockerSession,
  result: Pick<ContainerEnd, 'markers' | 'interpreter'>,
): Promise<DockerExit> {
  const timeoutControl = new AbortController();
  const timedOut = rest(EXIT_TIMEOUT_MS, undefined, { signal: timeoutControl.signal, ref: false }).then(
    () => {
      throw new Error('the output has ended, and the container has not');
    },
  );
  try {
    const code = await Promise.race([waitForExitCode(engine, session), timedOut]);
    const state = await engine.inspect(session.id);
    return toDockerExit({ ...result, code, wasOomKilled: state?.wasOomKilled ?? false });
  } finally {
    timedOut.catch(() => undefined);
    timeoutControl.abort();
  }
}

/** What lies between may have closed the silent connection that waits for the end: then it is asked for again. */
async function waitForExitCode(engine: Engine, session: DockerSession): Promise<number> {
  try {
    return await session.exitWait.exitCode;
  } catch {
    const secondWait = await engine.wait(session.id, 'not-running');
    return await secondWait.exitCode;
  }
}

/** Ends a run's container; and where the script could not do it any more, removes its files from the user's folder. */
async function removeContainerAndFiles(
  deps: DockerRunDeps,
  session: DockerSession,
  job: Job,
  markers: ReadonlySet<ScriptMarker>,
): Promise<Cleanup> {
  const cleanup = await removeContainer(deps.engine, session.id);
  const workdir = job.workdir ?? deps.target.workspacePath;
  const hasScriptCleanedUp = [...markers].some((record) => record !== 'start');
  if (workdir === null || hasScriptCleanedUp || cleanup === 'unverified') return cleanup;
  // Before its start it may have met files that are the user's own: those are not touched.
  if (!markers.has('start')) return 'unverified';
  return await removeJobFiles(deps, job, workdir).catch(() => 'unverified' as const);
}

async function removeJobFiles(deps: DockerRunDeps, job: Job, workdir: string): Promise<Cleanup> {
  const signal = AbortSignal.timeout(FILE_REMOVAL_TIMEOUT_MS);
  const session = await deps.openCleanupSession(job.runId, signal);
  try {
    const script = writeRemovalScript(job, workdir);
    const onTimeout = () => session.stream.destroy(new Error('too slow'));
    signal.addEventListener('abort', onTimeout, { once: true });
    session.stream.write(script.text);
    const markers = new Set<ScriptMarker>();
    for await (const _event of readDockerOutput(session, script.markerPrefix, markers));
    const { cause, code } = await readDockerExit(deps.engine, session, { ...script, markers });
    return cause === 'exited' && code === 0 ? 'verified' : 'unverified';
  } finally {
    detachSession(session);
    await removeContainer(deps.engine, session.id);
  }
}
