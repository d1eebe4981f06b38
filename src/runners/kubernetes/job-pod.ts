import type { V1Pod } from '@kubernetes/client-node';
import type { ClusterApi } from './api.ts';
import { ClusterError } from './failure.ts';
import { START_TIMEOUT_MS } from './manifest.ts';
import { isRunning, isUnschedulable, whyHopeless, type PodState } from './pod-state.ts';
import { removePod, waitForPod } from './waiting.ts';

/** The pod of one run, or of one test, from its making to its end. */
export interface JobPod {
  readonly name: string;
  /** Makes it and waits until its container runs. @throws ClusterError; or the reason of `signal`. */
  start(signal: AbortSignal): Promise<void>;
  /** Ends it, whatever state it is in, also one that is just being made. The same answer to all who ask. */
  remove(): Promise<'verified' | 'unverified'>;
}

/** Another pod may end meanwhile, or the cluster grow. */
const UNSCHEDULABLE_MS = 60_000;
const GONE = 'The pod was deleted in the cluster before it ran.';
const NO_ROOM = 'The cluster has no node with room for the pod: ask for less memory or fewer processors.';
const TOO_LATE = 'The pod did not start in three minutes: look at its namespace for what holds it back.';

/** Errors upon which nothing was made: the cluster has said no, or was not reached at all. */
const NOTHING_MADE = ['policy', 'tls', 'unauthenticated', 'forbidden', 'no_namespace', 'refused'];

/** @param unschedulableMs how long a cluster without room for the pod may take to find some. */
export function createJobPod(api: ClusterApi, manifest: V1Pod, unschedulableMs = UNSCHEDULABLE_MS): JobPod {
  const name = manifest.metadata?.name ?? '';
  /** What is known of its making; null until it is asked for. */
  let making: Promise<'made' | 'not made' | 'unknown'> | null = null;
  let removal: Promise<'verified' | 'unverified'> | undefined;

  async function remove(): Promise<'verified' | 'unverified'> {
    const made = (await making) ?? 'not made';
    if (made === 'not made') return 'verified';
    const result = await removePod(api, name);
    // A request that was not answered may still be carried out.
    return made === 'unknown' ? 'unverified' : result;
  }

  return {
    name,
    async start(signal) {
      signal.throwIfAborted();
      // Not ended by the signal: half a request leaves behind a pod that nobody knows of.
      const created = api.createPod(manifest);
      making = created.then(() => 'made', howFar);
      await created;
      await untilRunning(api, name, unschedulableMs, signal);
    },
    remove: () => (removal ??= remove()),
  };
}

function howFar(error: unknown): 'not made' | 'unknown' {
  return error instanceof ClusterError && NOTHING_MADE.includes(error.kind) ? 'not made' : 'unknown';
}

async function untilRunning(
  api: ClusterApi,
  name: string,
  unschedulableMs: number,
  signal: AbortSignal,
): Promise<void> {
  const noRoom = new AbortController();
  const tooLate = AbortSignal.timeout(START_TIMEOUT_MS);
  let noRoomTimer: NodeJS.Timeout | undefined;
  const decide = (pod: PodState | undefined): string | undefined => {
    if (pod !== undefined && isUnschedulable(pod))
      noRoomTimer ??= setTimeout(() => noRoom.abort(), unschedulableMs);
    else clearTimeout(noRoomTimer);
    if (pod === undefined) return GONE;
    return isRunning(pod) ? '' : whyHopeless(pod);
  };
  try {
    const fault = await waitForPod(api, name, decide, AbortSignal.any([signal, tooLate, noRoom.signal]));
    if (fault !== '') throw new ClusterError('refused', fault);
  } catch (error) {
    signal.throwIfAborted();
    if (noRoom.signal.aborted) throw new ClusterError('refused', NO_ROOM);
    if (tooLate.aborted) throw new ClusterError('timeout', TOO_LATE);
    throw error;
  } finally {
    clearTimeout(noRoomTimer);
  }
}
