import type { ExitEvent } from '../runner.ts';
import { findSignalName, SIGNAL_BASE } from '../shell.ts';
import type { ClusterApi } from './api.ts';
import { runPodCommand } from './exec.ts';
import { ClusterError } from './errors.ts';
import { INSPECT_COMMAND } from './launcher.ts';
import { EVICTED, hasEnded, wasOomKilled, type PodState } from './pod-state.ts';
import { waitForPod } from './wait-for-pod.ts';

/** How a run ended, before its cleanup. */
export type PodExit = Pick<ExitEvent, 'cause' | 'code' | 'signal' | 'message'>;

/** Maximum wait for kubelet to report the end of a container, which it does about every second. */
const REPORT_TIMEOUT_MS = 10_000;
const INSPECTION_TIMEOUT_MS = 10_000;

const CONNECTION_LOST = 'The connection to the pod broke, so how the program ended is unknown.';
const POD_DELETED = 'The pod was deleted in the cluster while the program ran.';
const OUT_OF_MEMORY = 'The program needed more memory than its limit.';

/** A failure of the server, not of the program. */
export function infrastructureExit(message: string): PodExit {
  return { cause: 'infrastructure', code: null, signal: null, message };
}

function lostExit(message: string): PodExit {
  return { cause: 'lost', code: null, signal: null, message };
}

function outOfMemoryExit(): PodExit {
  return { cause: 'out_of_memory', code: null, signal: 'SIGKILL', message: OUT_OF_MEMORY };
}

/** Converts the exit code of a command. Inspects the pod if the code is ambiguous. */
export async function readPodExit(
  api: ClusterApi,
  pod: string,
  code: number,
  signal: AbortSignal,
): Promise<PodExit> {
  const exited: PodExit = { cause: 'exited', code, signal: null, message: null };
  if (code <= SIGNAL_BASE) return exited;
  const inspection = await inspectPod(api, pod, signal);
  // If the kernel killed the whole container, there is nothing to inspect.
  if (inspection === undefined) return (await readExitFromPodState(api, pod)) ?? exited;
  const name = findSignalName(code);
  if (inspection.outOfMemory && name === 'SIGKILL') return outOfMemoryExit();
  if (inspection.bySignal && name !== null)
    return { cause: 'signal', code: null, signal: name, message: null };
  return exited;
}

/** Determines how a command ended that reported no exit code. */
export async function readPodExitWithoutCode(api: ClusterApi, pod: string): Promise<PodExit> {
  return (await readExitFromPodState(api, pod)) ?? lostExit(CONNECTION_LOST);
}

/** Reads the end from the pod's state. Undefined if the state does not show it. */
async function readExitFromPodState(api: ClusterApi, name: string): Promise<PodExit | undefined> {
  const decide = (pod: PodState | undefined): PodExit | undefined => {
    if (pod === undefined) return lostExit(POD_DELETED);
    if (wasOomKilled(pod)) return outOfMemoryExit();
    if (pod.status?.reason === 'Evicted') return infrastructureExit(EVICTED);
    if (pod.metadata.deletionTimestamp != null) return lostExit(POD_DELETED);
    return hasEnded(pod) ? lostExit(CONNECTION_LOST) : undefined;
  };
  try {
    return await waitForPod(api, name, decide, AbortSignal.timeout(REPORT_TIMEOUT_MS));
  } catch {
    return undefined;
  }
}

interface Inspection {
  bySignal: boolean;
  outOfMemory: boolean;
}

async function inspectPod(
  api: ClusterApi,
  pod: string,
  signal: AbortSignal,
): Promise<Inspection | undefined> {
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(INSPECTION_TIMEOUT_MS)]);
  try {
    const result = await runPodCommand(api, pod, INSPECT_COMMAND, timedSignal);
    if (result === undefined) return undefined;
    const [note = '', counters = ''] = result.stdout.split('\n--\n');
    return { bySignal: note.trim() !== '', outOfMemory: /^oom_kill [1-9]/m.test(counters) };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ClusterError || timedSignal.aborted) return undefined;
    throw error;
  }
}
