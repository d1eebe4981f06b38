import { setTimeout as sleep } from 'node:timers/promises';
import type { Job, Limits, RunEvent, StopCause, Target } from '../runner.ts';
import type { ClusterApi } from './api.ts';
import type { KubernetesConfig } from './config.ts';
import { endingOf, endingWithoutCode, infrastructure, type Ending } from './ending.ts';
import { startExec, type Exec } from './exec.ts';
import { ClusterError } from './failure.ts';
import { createJobPod, type JobPod } from './job-pod.ts';
import { launchOf, REFUSALS, STARTED } from './launcher.ts';
import { podManifest } from './manifest.ts';
import { hasEnded } from './pod-state.ts';

const MAX_MISSES = 3;
/** For what a pod that has ended still had to say. */
const LAST_WORDS_MS = 5_000;
/** The first line of standard error is the launcher's, and short. */
const MAX_GREETING_BYTES = 64;

export interface PodRun {
  target: Target<KubernetesConfig>;
  job: Job;
  limits: Limits;
  signal: AbortSignal;
  /** How often it is looked whether the pod is still there: a path that is dead says nothing by itself. */
  heartbeatMs: number;
}

/** Runs a job in a pod of its own, which is gone when this ends, however it ends. */
export async function* runInPod(api: ClusterApi, run: PodRun): AsyncGenerator<RunEvent, void> {
  const { target, job, limits, signal } = run;
  const pod = createJobPod(api, podManifest(target, job.runId, limits));
  // At once, not when the output is next read: nobody may be reading.
  const stop = () => void pod.remove();
  signal.addEventListener('abort', stop);
  try {
    yield { type: 'phase', phase: 'preparing' };
    const ending = yield* play(api, pod, run);
    const cleanup = await pod.remove();
    yield { type: 'exit', ...(signal.aborted ? stopped(signal) : ending), cleanup };
  } finally {
    signal.removeEventListener('abort', stop);
    await pod.remove();
  }
}

function stopped(signal: AbortSignal): Ending {
  return { cause: signal.reason as StopCause, code: null, signal: null, message: null };
}

async function* play(
  api: ClusterApi,
  pod: JobPod,
  { target, job, signal, heartbeatMs }: PodRun,
): AsyncGenerator<RunEvent, Ending> {
  const { command, input } = launchOf(job, job.workdir ?? target.workspacePath);
  try {
    await pod.start(signal);
    const exec = await startExec(api, pod.name, command, input, signal);
    const refusal = yield* follow(api, pod, exec, { signal, heartbeatMs });
    signal.throwIfAborted();
    if (refusal !== undefined) return infrastructure(refusal);
    const code = exec.code();
    return code === undefined
      ? await endingWithoutCode(api, pod.name)
      : await endingOf(api, pod.name, code, signal);
  } catch (error) {
    if (signal.aborted) return stopped(signal);
    if (error instanceof ClusterError) return infrastructure(error.message);
    throw error;
  }
}

/** Passes the output on. @returns why the program was not started; undefined where it was. */
async function* follow(
  api: ClusterApi,
  pod: JobPod,
  exec: Exec,
  { signal, heartbeatMs }: Pick<PodRun, 'signal' | 'heartbeatMs'>,
): AsyncGenerator<RunEvent, string | undefined> {
  const over = new AbortController();
  signal.addEventListener('abort', exec.close);
  if (signal.aborted) exec.close();
  void watchOver(api, pod.name, exec, heartbeatMs, over.signal);
  const greeting = createGreeting();
  let hasStarted = false;
  try {
    for await (const { stream, data } of exec.output()) {
      if (signal.aborted) return undefined;
      const own = stream === 'stderr' ? greeting.strip(data) : data;
      // Of two streams, which one is heard first is chance; the launcher itself says nothing on standard output.
      if (!hasStarted && (stream === 'stdout' || greeting.line() === STARTED)) {
        hasStarted = true;
        yield { type: 'phase', phase: 'started' };
      }
      if (hasStarted && own.length > 0) yield { type: 'output', stream, data: own };
    }
  } finally {
    over.abort();
    signal.removeEventListener('abort', exec.close);
    exec.close();
  }
  return hasStarted ? undefined : await whyNotStarted(greeting.line(), api, pod.name);
}

const NO_SHELL =
  'The command could not be started in the container: the image needs a shell (sh), head and tail.';

async function whyNotStarted(line: string | undefined, api: ClusterApi, name: string): Promise<string> {
  if (line !== undefined && Object.hasOwn(REFUSALS, line)) return REFUSALS[line as keyof typeof REFUSALS];
  const pod = await api.findPod(name);
  if (pod === undefined || hasEnded(pod)) return 'The pod ended before the program was started.';
  return NO_SHELL;
}

/** Takes the launcher's line off the beginning of a stream. */
function createGreeting() {
  let held = Buffer.alloc(0);
  let line: string | undefined;
  return {
    line: () => line,
    strip(data: Buffer): Buffer {
      if (line !== undefined) return data;
      held = Buffer.concat([held, data]);
      const end = held.indexOf('\n');
      if (end < 0 && held.length <= MAX_GREETING_BYTES) return Buffer.alloc(0);
      line = held.toString('latin1', 0, Math.max(0, end));
      return held.subarray(end + 1);
    },
  };
}

/** Ends the connection to a command whose pod, or whose cluster, is no longer there. */
async function watchOver(
  api: ClusterApi,
  pod: string,
  exec: Exec,
  heartbeatMs: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (let misses = 0; misses < MAX_MISSES;) {
      await sleep(heartbeatMs, undefined, { signal });
      const answer = await Promise.race([look(api, pod), sleep(heartbeatMs, 'unknown' as const, { signal })]);
      if (answer === 'ended') {
        await sleep(LAST_WORDS_MS, undefined, { signal });
        break;
      }
      misses = answer === 'unknown' ? misses + 1 : 0;
    }
  } catch {
    // The command has ended, and with it this.
  }
  exec.close();
}

async function look(api: ClusterApi, pod: string): Promise<'there' | 'ended' | 'unknown'> {
  try {
    const state = await api.findPod(pod);
    return state === undefined || hasEnded(state) ? 'ended' : 'there';
  } catch {
    return 'unknown';
  }
}
