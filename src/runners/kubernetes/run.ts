import { setTimeout as delay } from 'node:timers/promises';
import { createMarkerReader } from '../marker-stream.ts';
import type { Job, Limits, RunEvent, StopCause, TargetServer } from '../runner.ts';
import type { Setup } from '../setup.ts';
import type { ClusterApi } from './api.ts';
import type { KubernetesConfig } from './config.ts';
import { readPodExit, readPodExitWithoutCode, infrastructureExit, type PodExit } from './exit.ts';
import { startExec, type Exec } from './exec.ts';
import { ClusterError } from './errors.ts';
import { createJobPod, type JobPod } from './job-pod.ts';
import { createJobLaunch, parseLaunchMarker, explainStartFailure, type LaunchMarker } from './launcher.ts';
import { createPodManifest } from './manifest.ts';
import { hasEnded } from './pod-state.ts';

const MAX_MISSED_CHECKS = 3;
/** Time for the remaining output of a pod that has ended. */
const FINAL_OUTPUT_MS = 5_000;

export interface PodRun {
  target: TargetServer<KubernetesConfig>;
  job: Job;
  limits: Limits;
  signal: AbortSignal;
  /** Of this run. Then the markers of the set-up are in its output. */
  setup?: Setup | undefined;
  /**
   * Interval of checks that the pod still exists, because a broken network path causes no error by itself.
   */
  heartbeatMs: number;
}

/** Runs a job in its own pod, which is removed at the end in any case. */
export async function* runPod(api: ClusterApi, run: PodRun): AsyncGenerator<RunEvent, void> {
  const { target, job, limits, signal } = run;
  const pod = createJobPod(api, createPodManifest(target, job.runId, limits));
  // At once, not at the next read: the reader may have stopped reading.
  const stop = () => void pod.remove();
  signal.addEventListener('abort', stop);
  try {
    yield { type: 'phase', phase: 'preparing' };
    const exit = yield* runJobInPod(api, pod, run);
    const cleanup = await pod.remove();
    yield { type: 'exit', ...(signal.aborted ? stoppedExit(signal) : exit), cleanup };
  } finally {
    signal.removeEventListener('abort', stop);
    await pod.remove();
  }
}

function stoppedExit(signal: AbortSignal): PodExit {
  return { cause: signal.reason as StopCause, code: null, signal: null, message: null };
}

async function* runJobInPod(
  api: ClusterApi,
  pod: JobPod,
  { target, job, signal, heartbeatMs, setup }: PodRun,
): AsyncGenerator<RunEvent, PodExit> {
  const { command, input, markerPrefix } = createJobLaunch(job, job.workdir ?? target.workspacePath, setup);
  try {
    await pod.start(signal);
    const exec = await startExec(api, pod.name, command, input, signal);
    const startFailure = yield* streamOutput(api, pod, exec, { signal, heartbeatMs, markerPrefix });
    signal.throwIfAborted();
    if (startFailure !== undefined) return infrastructureExit(startFailure);
    const code = exec.code();
    return code === undefined
      ? await readPodExitWithoutCode(api, pod.name)
      : await readPodExit(api, pod.name, code, signal);
  } catch (error) {
    if (signal.aborted) return stoppedExit(signal);
    if (error instanceof ClusterError) return infrastructureExit(error.message);
    throw error;
  }
}

/** Yields the output. @returns why the program did not start; undefined if it did. */
async function* streamOutput(
  api: ClusterApi,
  pod: JobPod,
  exec: Exec,
  { signal, heartbeatMs, markerPrefix }: Pick<PodRun, 'signal' | 'heartbeatMs'> & { markerPrefix: Buffer },
): AsyncGenerator<RunEvent, string | undefined> {
  const ended = new AbortController();
  signal.addEventListener('abort', exec.close);
  if (signal.aborted) exec.close();
  void monitorPod(api, pod.name, exec, heartbeatMs, ended.signal);
  const reader = createMarkerReader(markerPrefix, parseLaunchMarker);
  let marker: LaunchMarker | undefined;
  let hasStarted = false;
  try {
    for await (const { stream, data } of exec.output()) {
      if (signal.aborted) return undefined;
      for (const item of stream === 'stderr' ? reader.read(data) : [data]) {
        const isOutput = Buffer.isBuffer(item);
        if (!isOutput) marker ??= item;
        // The order between the two streams is not fixed. The launcher itself prints nothing to standard
        // output.
        if (!hasStarted && (stream === 'stdout' || marker === 'started')) {
          hasStarted = true;
          yield { type: 'phase', phase: 'started' };
        }
        if (hasStarted && isOutput && item.length > 0) yield { type: 'output', stream, data: item };
      }
    }
    const rest = reader.flush();
    if (hasStarted && rest.length > 0) yield { type: 'output', stream: 'stderr', data: rest };
  } finally {
    ended.abort();
    signal.removeEventListener('abort', exec.close);
    exec.close();
  }
  return hasStarted ? undefined : await explainNotStarted(marker, api, pod);
}

async function explainNotStarted(
  marker: LaunchMarker | undefined,
  api: ClusterApi,
  { name, image }: Pick<JobPod, 'name' | 'image'>,
): Promise<string> {
  if (marker !== undefined && marker !== 'started') return explainStartFailure(marker, image);
  const pod = await api.findPod(name);
  if (pod === undefined || hasEnded(pod)) return 'The pod ended before the program was started.';
  return `The command could not be started in the container: the image ${image} needs a shell (sh), head and tail.`;
}

/** Checks the pod regularly. Closes the connection to its command when the pod or the cluster is gone. */
async function monitorPod(
  api: ClusterApi,
  pod: string,
  exec: Exec,
  heartbeatMs: number,
  signal: AbortSignal,
): Promise<void> {
  try {
    for (let missedChecks = 0; missedChecks < MAX_MISSED_CHECKS;) {
      await delay(heartbeatMs, undefined, { signal });
      const state = await Promise.race([
        checkPod(api, pod),
        delay(heartbeatMs, 'unknown' as const, { signal }),
      ]);
      if (state === 'ended') {
        await delay(FINAL_OUTPUT_MS, undefined, { signal });
        break;
      }
      missedChecks = state === 'unknown' ? missedChecks + 1 : 0;
    }
  } catch {
    // The command has ended, which stops these checks.
  }
  exec.close();
}

async function checkPod(api: ClusterApi, pod: string): Promise<'there' | 'ended' | 'unknown'> {
  try {
    const found = await api.findPod(pod);
    return found === undefined || hasEnded(found) ? 'ended' : 'there';
  } catch {
    return 'unknown';
  }
}
