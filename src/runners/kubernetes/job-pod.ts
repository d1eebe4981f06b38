import type { V1Pod } from '@kubernetes/client-node';
import type { ClusterApi } from './api.ts';
import { ClusterError } from './errors.ts';
import { START_TIMEOUT_MS } from './manifest.ts';
import { isRunning, isUnschedulable, findStartFailure, type PodState } from './pod-state.ts';
import { removePod, waitForPod } from './wait-for-pod.ts';

/** The pod of one run or test, from its creation to its removal. */
export interface JobPod {
  readonly name: string;
  readonly image: string;
  /** Creates the pod and waits until its container runs. @throws ClusterError; or the reason of `signal`. */
  start(signal: AbortSignal): Promise<void>;
  /** Removes the pod in any state, also while it is being created. All callers get the same result. */
  remove(): Promise<'verified' | 'unverified'>;
}

/** Meanwhile another pod may end, or the cluster may grow. */
const UNSCHEDULABLE_TIMEOUT_MS = 60_000;
const DELETED_BEFORE_START = 'The pod was deleted in the cluster before it ran.';
const UNSCHEDULABLE =
  'The cluster has no node with enough free resources for the pod: ask for less memory or fewer processors.';
const START_TIMEOUT = 'The pod did not start in three minutes: look at the events of its namespace.';

/** Error kinds after which no pod exists: the cluster has refused, or was not reached. */
const NOT_CREATED_KINDS = ['policy', 'tls', 'unauthenticated', 'forbidden', 'no_namespace', 'refused'];

/** @param unschedulableMs how long a cluster may take to find a node with enough free resources for the pod. */
export function createJobPod(
  api: ClusterApi,
  manifest: V1Pod,
  unschedulableMs = UNSCHEDULABLE_TIMEOUT_MS,
): JobPod {
  const name = manifest.metadata?.name ?? '';
  const image = manifest.spec?.containers[0]?.image ?? '';
  /** Result of the creation. Null before it starts. */
  let creation: Promise<'made' | 'not made' | 'unknown'> | null = null;
  let removal: Promise<'verified' | 'unverified'> | undefined;

  async function remove(): Promise<'verified' | 'unverified'> {
    const creationResult = (await creation) ?? 'not made';
    if (creationResult === 'not made') return 'verified';
    const result = await removePod(api, name);
    // A request without a response may still be carried out.
    return creationResult === 'unknown' ? 'unverified' : result;
  }

  return {
    name,
    image,
    async start(signal) {
      signal.throwIfAborted();
      // Not aborted by the signal: an aborted request could create a pod that is not known here.
      const created = api.createPod(manifest);
      creation = created.then(() => 'made', toCreationResult);
      await created;
      await waitUntilRunning(api, { name, image }, unschedulableMs, signal);
    },
    remove: () => (removal ??= remove()),
  };
}

function toCreationResult(error: unknown): 'not made' | 'unknown' {
  return error instanceof ClusterError && NOT_CREATED_KINDS.includes(error.kind) ? 'not made' : 'unknown';
}

async function waitUntilRunning(
  api: ClusterApi,
  { name, image }: Pick<JobPod, 'name' | 'image'>,
  unschedulableMs: number,
  signal: AbortSignal,
): Promise<void> {
  const unschedulable = new AbortController();
  const startTimeout = AbortSignal.timeout(START_TIMEOUT_MS);
  let unschedulableTimer: NodeJS.Timeout | undefined;
  const decide = (pod: PodState | undefined): string | undefined => {
    if (pod !== undefined && isUnschedulable(pod))
      unschedulableTimer ??= setTimeout(() => unschedulable.abort(), unschedulableMs);
    else clearTimeout(unschedulableTimer);
    if (pod === undefined) return DELETED_BEFORE_START;
    return isRunning(pod) ? '' : findStartFailure(pod, image);
  };
  try {
    const failure = await waitForPod(
      api,
      name,
      decide,
      AbortSignal.any([signal, startTimeout, unschedulable.signal]),
    );
    if (failure !== '') throw new ClusterError('refused', failure);
  } catch (error) {
    signal.throwIfAborted();
    if (unschedulable.signal.aborted) throw new ClusterError('refused', UNSCHEDULABLE);
    if (startTimeout.aborted) throw new ClusterError('timeout', START_TIMEOUT);
    throw error;
  } finally {
    clearTimeout(unschedulableTimer);
  }
}
