import type { ClusterApi } from './api.ts';
import { labelOf, LABELS, MANAGER } from './names.ts';
import type { PodState } from './pod-state.ts';
import { removePod } from './waiting.ts';

/** After its deadline, for whoever still reads how it ended. */
const KEPT_MS = 10 * 60_000;

/** Ends every pod of a run. @throws ClusterError when they cannot be listed. */
export async function removeRun(api: ClusterApi, runId: string): Promise<'verified' | 'unverified'> {
  const pods = await api.listPods(`${LABELS.managedBy}=${MANAGER},${LABELS.run}=${labelOf(runId)}`);
  return await removeAll(api, pods);
}

/**
 * Ends what runs of a server have left behind: pods past their own deadline, of instances that died.
 * @throws ClusterError when they cannot be listed.
 */
export async function sweep(
  api: ClusterApi,
  serverId: string,
  nowMs: number,
): Promise<'verified' | 'unverified'> {
  const pods = await api.listPods(`${LABELS.managedBy}=${MANAGER},${LABELS.server}=${labelOf(serverId)}`);
  return await removeAll(
    api,
    pods.filter((pod) => isLeftover(pod, nowMs)),
  );
}

function isLeftover({ metadata, spec }: PodState, nowMs: number): boolean {
  const createdMs = Date.parse(metadata.creationTimestamp ?? '');
  const lifetimeMs = (spec?.activeDeadlineSeconds ?? 0) * 1000;
  return createdMs + lifetimeMs + KEPT_MS < nowMs;
}

/** At a time; what is left is found by the next sweep. */
const MAX_REMOVED = 50;

async function removeAll(api: ClusterApi, pods: PodState[]): Promise<'verified' | 'unverified'> {
  // One after the other: there are few, and hundreds of watches at once are not what a cluster expects.
  let result: 'verified' | 'unverified' = pods.length > MAX_REMOVED ? 'unverified' : 'verified';
  for (const { metadata } of pods.slice(0, MAX_REMOVED)) {
    if ((await removePod(api, metadata.name)) === 'unverified') result = 'unverified';
  }
  return result;
}
