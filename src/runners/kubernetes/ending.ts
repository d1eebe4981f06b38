import { constants } from 'node:os';
import type { ExitEvent } from '../runner.ts';
import type { ClusterApi } from './api.ts';
import { runCommand } from './command.ts';
import { ClusterError } from './failure.ts';
import { INSPECTOR } from './launcher.ts';
import { EVICTED, hasEnded, ranOutOfMemory, type PodState } from './pod-state.ts';
import { waitForPod } from './waiting.ts';

/** How a run ended, before anything was cleaned up. */
export type Ending = Pick<ExitEvent, 'cause' | 'code' | 'signal' | 'message'>;

/** Until kubelet has reported the end of a container, which it does every second or so. */
const REPORT_MS = 10_000;
const INSPECTION_MS = 10_000;
/** What a shell makes of a signal. */
const SIGNAL_BASE = 128;

const LOST = 'The connection to the pod broke off, and nobody could tell how the program ended.';
const DELETED = 'The pod was deleted in the cluster while the program ran.';
const OUT_OF_MEMORY = 'The program needed more memory than its limit.';

/** A failure that is not the program's. */
export function infrastructure(message: string): Ending {
  return { cause: 'infrastructure', code: null, signal: null, message };
}

function lost(message: string): Ending {
  return { cause: 'lost', code: null, signal: null, message };
}

function outOfMemory(): Ending {
  return { cause: 'out_of_memory', code: null, signal: 'SIGKILL', message: OUT_OF_MEMORY };
}

/** What the end of a command says, with a look into the pod where a code may mean several things. */
export async function endingOf(
  api: ClusterApi,
  pod: string,
  code: number,
  signal: AbortSignal,
): Promise<Ending> {
  const exited: Ending = { cause: 'exited', code, signal: null, message: null };
  if (code <= SIGNAL_BASE) return exited;
  const found = await inspect(api, pod, signal);
  // Where the kernel kills a container as a whole, nothing is left to look into.
  if (found === undefined) return (await explain(api, pod)) ?? exited;
  const name = signalName(code - SIGNAL_BASE);
  if (found.outOfMemory && name === 'SIGKILL') return outOfMemory();
  if (found.bySignal && name !== null) return { cause: 'signal', code: null, signal: name, message: null };
  return exited;
}

/** Why a command ended without a word of its own. */
export async function endingWithoutCode(api: ClusterApi, pod: string): Promise<Ending> {
  return (await explain(api, pod)) ?? lost(LOST);
}

/** What the pod's state says of its end; undefined where it says nothing. */
async function explain(api: ClusterApi, name: string): Promise<Ending | undefined> {
  const judge = (pod: PodState | undefined): Ending | undefined => {
    if (pod === undefined) return lost(DELETED);
    if (ranOutOfMemory(pod)) return outOfMemory();
    if (pod.status?.reason === 'Evicted') return infrastructure(EVICTED);
    if (pod.metadata.deletionTimestamp != null) return lost(DELETED);
    return hasEnded(pod) ? lost(LOST) : undefined;
  };
  try {
    return await waitForPod(api, name, judge, AbortSignal.timeout(REPORT_MS));
  } catch {
    return undefined;
  }
}

interface Findings {
  bySignal: boolean;
  outOfMemory: boolean;
}

async function inspect(api: ClusterApi, pod: string, signal: AbortSignal): Promise<Findings | undefined> {
  const bound = AbortSignal.any([signal, AbortSignal.timeout(INSPECTION_MS)]);
  try {
    const answer = await runCommand(api, pod, INSPECTOR, bound);
    if (answer === undefined) return undefined;
    const [note = '', counters = ''] = answer.stdout.split('\n--\n');
    return { bySignal: note.trim() !== '', outOfMemory: /^oom_kill [1-9]/m.test(counters) };
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ClusterError || bound.aborted) return undefined;
    throw error;
  }
}

function signalName(number: number): string | null {
  const found = Object.entries(constants.signals).find(([, value]) => value === number);
  return found?.[0] ?? null;
}
