import { setTimeout as delay } from 'node:timers/promises';
import { rejectOnAbort } from '../../lib/async/reject-on-abort.ts';
import type { ClusterApi } from './api.ts';
import { toClusterError, type ClusterError } from './errors.ts';
import type { PodState } from './pod-state.ts';

/** Delay before the next read, if a watch ends at once. */
const RETRY_DELAY_MS = 250;

/**
 * Reads a pod and watches its changes until `decide` returns a decision. `decide` receives undefined once the
 * pod is gone.
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
    await delay(RETRY_DELAY_MS, undefined, { signal }).catch(() => undefined);
  }
}

/**
 * Grace period of a deletion. 1 is the minimum: with 0 the cluster removes a pod from its list although its
 * processes still run.
 */
const GRACE_SECONDS = 1;
/** Less than the time that `supervise` waits for the end of a run. */
const REMOVAL_TIMEOUT_MS = 20_000;

/**
 * Removes a pod and waits until its node confirms that nothing of it runs. Only then is it no longer listed.
 * @returns `unverified` without that confirmation. The pod's own deadline then ends it.
 */
export async function removePod(api: ClusterApi, name: string): Promise<'verified' | 'unverified'> {
  const signal = AbortSignal.timeout(REMOVAL_TIMEOUT_MS);
  // Requests have their own, longer timeouts.
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
      await delay(RETRY_DELAY_MS);
    }
  }
}

function isGone(pod: PodState | undefined): true | undefined {
  return pod === undefined ? true : undefined;
}

function isTransient({ kind }: ClusterError): boolean {
  return kind === 'unreachable' || kind === 'timeout';
}
