import type { ClusterApi } from './api.ts';
import { toLabelValue, LABELS, MANAGED_BY } from './object-names.ts';
import type { PodState } from './pod-state.ts';
import { removePod } from './wait-for-pod.ts';

/** Time after the deadline of a pod in which its end may still be read. */
const EXPIRY_GRACE_MS = 10 * 60_000;

/** Removes every pod of a run. @throws ClusterError if they cannot be listed. */
export async function removeRunPods(api: ClusterApi, runId: string): Promise<'verified' | 'unverified'> {
  const pods = await api.listPods(`${LABELS.managedBy}=${MANAGED_BY},${LABELS.run}=${toLabelValue(runId)}`);
  return await removePods(api, pods);
}

/**
 * Removes a server's pods that are past their own deadline, left by instances that have ended.
 * @throws ClusterError if they cannot be listed.
 */
export async function removeExpiredPods(
  api: ClusterApi,
  serverId: string,
  nowMs: number,
): Promise<'verified' | 'unverified'> {
  const pods = await api.listPods(
    `${LABELS.managedBy}=${MANAGED_BY},${LABELS.server}=${toLabelValue(serverId)}`,
  );
  return await removePods(
    api,
    pods.filter((pod) => isExpired(pod, nowMs)),
  );
}

function isExpired({ metadata, spec }: PodState, nowMs: number): boolean {
  const createdMs = Date.parse(metadata.creationTimestamp ?? '');
  const lifetimeMs = (spec?.activeDeadlineSeconds ?? 0) * 1000;
  return createdMs + lifetimeMs + EXPIRY_GRACE_MS < nowMs;
}

/** Per call. A later call removes the rest. */
const MAX_REMOVED_PODS = 50;

async function removePods(api: ClusterApi, pods: PodState[]): Promise<'verified' | 'unverified'> {
  // One at a time: there are few, and hundreds of watches at once are unusual load for a cluster.
  let result: 'verified' | 'unverified' = pods.length > MAX_REMOVED_PODS ? 'unverified' : 'verified';
  for (const { metadata } of pods.slice(0, MAX_REMOVED_PODS)) {
    if ((await removePod(api, metadata.name)) === 'unverified') result = 'unverified';
  }
  return result;
}
