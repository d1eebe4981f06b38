import { setTimeout as delay } from 'node:timers/promises';
import type { ExitEvent, Job, Limits, RunEvent, StopCause, TargetServer } from '../runner.ts';
import type { Setup } from '../setup.ts';
import { removeContainer, removeRunContainers } from './cleanup.ts';
import type { DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { toDockerExit, exitWithoutCode, type ContainerEnd, type DockerExit } from './exit.ts';
import { explainDockerError } from './errors.ts';
import { readDockerOutput } from './output.ts';
import { createRemovalScript, createScript, type ScriptMarker } from './script.ts';
import { ContainerNotRequestedError, detachSession, type DockerSession } from './session.ts';

export interface DockerRunDeps {
  engine: Engine;
  target: TargetServer<DockerConfig>;
  /** Takes a pre-started container or creates one. @throws what `openDockerSession` throws. */
  openJobSession(limits: Limits, runId: string, signal: AbortSignal): Promise<DockerSession>;
  /** Creates another container, which removes the job's files. */
  openCleanupSession(runId: string, signal: AbortSignal): Promise<DockerSession>;
  /** Called once when the program has started. */
  onStarted(): void;
  heartbeatMs: number;
  /** Of this run. Then the markers of the set-up are in its output. */
  setup?: Setup | undefined;
}

type Cleanup = ExitEvent['cleanup'];

/** The engine reports the exit of a container at about the time its output ends. */
const EXIT_TIMEOUT_MS = 10_000;
const FILE_REMOVAL_TIMEOUT_MS = 15_000;
/** One missing response is tolerated, because the engine may be busy. */
const MAX_MISSED_PINGS = 2;
const NOT_STARTED = 'The connection to the engine broke before the program started.';
const CONNECTION_LOST =
  'The connection to the engine broke while the program ran, so how it ended is unknown.';

/** Runs a job in its own container. */
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
    const cleanup =
      error instanceof ContainerNotRequestedError
        ? 'verified'
        : await removeRunContainers(deps.engine, deps.target, job.runId);
    const exit = signal.aborted
      ? exitWithoutCode(signal.reason as StopCause)
      : exitWithoutCode('infrastructure', explainDockerError(error));
    yield { type: 'exit', ...exit, cleanup };
    return;
  }
  yield* runInSession(deps, session, job, signal);
}

/** Sends a job to a container and ends when nothing is left of it. */
async function* runInSession(
  deps: DockerRunDeps,
  session: DockerSession,
  job: Job,
  signal: AbortSignal,
): AsyncGenerator<RunEvent, void> {
  const { engine, target } = deps;
  const workdir = job.workdir ?? target.workspacePath;
  const script = createScript(job, workdir, target.config.environment ?? {}, deps.setup);
  const markers = new Set<ScriptMarker>();
  let cleanup: Promise<Cleanup> | undefined;
  const removeOnce = () => (cleanup ??= removeContainerAndFiles(deps, session, job, markers));
  const onAbort = () => {
    // Not left to the loop below, which waits for the reader of the events.
    void removeOnce();
    session.stream.destroy(new Error('stopped'));
  };
  const stopMonitor = monitorEngine(engine, deps.heartbeatMs, () => {
    session.stream.destroy(new Error('the engine does not respond'));
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
    exit = await readDockerExit(engine, session, { ...script, markers, image: target.config.image });
  } catch {
    exit = hasStarted
      ? exitWithoutCode('lost', CONNECTION_LOST)
      : exitWithoutCode('infrastructure', NOT_STARTED);
  } finally {
    signal.removeEventListener('abort', onAbort);
    stopMonitor();
    detachSession(session);
    await removeOnce();
  }
  if (signal.aborted) exit = exitWithoutCode(signal.reason as StopCause);
  yield { type: 'exit', ...exit, cleanup: await removeOnce() };
}

/** Reads how the program ended, after the end of its output. @throws if that is unknown. */
export async function readDockerExit(
  engine: Engine,
  session: DockerSession,
  result: Pick<ContainerEnd, 'markers' | 'interpreter' | 'image'>,
): Promise<DockerExit> {
  const timeoutControl = new AbortController();
  const timedOut = delay(EXIT_TIMEOUT_MS, undefined, { signal: timeoutControl.signal, ref: false }).then(
    () => {
      throw new Error('the output has ended, but the container has not');
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

/** A proxy may have closed the idle connection that waits for the exit. Then it waits once more. */
async function waitForExitCode(engine: Engine, session: DockerSession): Promise<number> {
  try {
    return await session.exitWait.exitCode;
  } catch {
    const secondWait = await engine.wait(session.id, 'not-running');
    return await secondWait.exitCode;
  }
}

/**
 * Removes a run's container. If the script could not do it, also removes the job's files from the user's
 * folder.
 */
async function removeContainerAndFiles(
  deps: DockerRunDeps,
  session: DockerSession,
  job: Job,
  markers: ReadonlySet<ScriptMarker>,
): Promise<Cleanup> {
  const cleanup = await removeContainer(deps.engine, session.id);
  const workdir = job.workdir ?? deps.target.workspacePath;
  const hasScriptCleanedUp = [...markers].some((marker) => marker !== 'start');
  if (workdir === null || hasScriptCleanedUp || cleanup === 'unverified') return cleanup;
  // Before the start, files of these names may be the user's own. They are not touched.
  if (!markers.has('start')) return 'unverified';
  return await removeJobFiles(deps, job, workdir).catch(() => 'unverified' as const);
}

async function removeJobFiles(deps: DockerRunDeps, job: Job, workdir: string): Promise<Cleanup> {
  const signal = AbortSignal.timeout(FILE_REMOVAL_TIMEOUT_MS);
  let session: DockerSession | undefined;
  try {
    session = await deps.openCleanupSession(job.runId, signal);
    const { stream } = session;
    const script = createRemovalScript(job, workdir);
    const onTimeout = () => stream.destroy(new Error('too slow'));
    signal.addEventListener('abort', onTimeout, { once: true });
    stream.write(script.text);
    const markers = new Set<ScriptMarker>();
    for await (const _event of readDockerOutput(session, script.markerPrefix, markers));
    const { cause, code } = await readDockerExit(deps.engine, session, {
      ...{ ...script, markers },
      image: deps.target.config.image,
    });
    return cause === 'exited' && code === 0 ? 'verified' : 'unverified';
  } finally {
    if (session !== undefined) detachSession(session);
    await removeRunContainers(deps.engine, deps.target, job.runId);
  }
}

/**
 * Pings an engine regularly, because a broken network path causes no error by itself.
 * @param onLost called at most once, after two pings without a response.
 * @returns stops the pings.
 */
function monitorEngine(engine: Engine, intervalMs: number, onLost: () => void): () => void {
  const stopping = new AbortController();
  let missed = 0;
  const timer = setInterval(() => {
    const pingSignal = AbortSignal.any([stopping.signal, AbortSignal.timeout(intervalMs)]);
    engine.ping(pingSignal).then(
      () => {
        missed = 0;
      },
      () => {
        missed += 1;
        if (missed < MAX_MISSED_PINGS || stopping.signal.aborted) return;
        stop();
        onLost();
      },
    );
  }, intervalMs).unref();
  const stop = () => {
    clearInterval(timer);
    stopping.abort();
  };
  return stop;
}
