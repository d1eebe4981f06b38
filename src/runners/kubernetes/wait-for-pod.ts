import { setTimeout as sleep } from 'node:timers/promises';
import { rejectOnAbort } from '../../lib/net/deadline.ts';
import type { ClusterApi } from './api.ts';
import { toClusterError, type ClusterError } from './errors.ts';
import type { PodState } from './pod-state.ts';

/** Between two looks where watching ends at once. */
const RETRY_DELAY_MS = 250;

/**
 * Looks at a pod, as it is and as it changes, until `decide` knows enough. It is called with undefined once the pod
 * is gone.
 * @throws ClusterError, or the reason of `signal`.
 */
export async function waitForPod<Decision>(
  api: ClusterApi,
  name: string,
  decide: (pod: PodState | undefined) => Decision | undefined,
  signal: AbortSignal,
): Promise<Decision> {
  for (;;) {
    signal.throwIfAborted();
    const pod = await api.findPod(name);
    let decision = decide(pod);
    if (decision !== undefined) return decision;
    for await (const state of api.watchPod(name, pod?.metadata.resourceVersion ?? '0', signal)) {
      decision = decide(state);
      if (decision !== undefined) return decision;
    }
    await sleep(RETRY_DELAY_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** Asks kubelet to end a pod at once. The least that means so: with 0 the cluster forgets a pod whose processes run on. */
const GRACE_SECONDS = 1;
/** Less than whoever waits for the end of a run does. */
const REMOVAL_TIMEOUT_MS = 20_000;

/**
 * Ends a pod, and waits until its node has said that nothing of it runs any more: only then is it no longer listed.
 * @returns `unverified` where that was not heard; the pod's own deadline then ends it.
 */
export async function removePod(api: ClusterApi, name: string): Promise<'verified' | 'unverified'> {
  const signal = AbortSignal.timeout(REMOVAL_TIMEOUT_MS);
  // Requests have bounds of their own, and longer ones.
  return await rejectOnAbort(removeUntilGone(api, name, signal), signal).catch(() => 'unverified');
}

async function removeUntilGone(
  api: ClusterApi,
  name: string,
  signal: AbortSignal,
): Promise<'verified' | 'unverified'> {
  for (;;) {
    try {
      if (await api.deletePod(name, GRACE_SECONDS)) await waitForPod(api, name, isGone, signal);
      return 'verified';
    } catch (error) {
      if (signal.aborted || !isTransient(toClusterError(error))) return 'unverified';
      await sleep(RETRY_DELAY_MS);
    }
  }
}

function isGone(pod: PodState | undefined): true | undefined {
  return pod === undefined ? true : undefined;
}

function isTransient({ kind }: ClusterError): boolean {
  return kind === 'unreachable' || kind === 'timeout';
}
