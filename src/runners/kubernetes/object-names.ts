import { createHash } from 'node:crypto';

/** DNS-1123 label (Kubernetes, "Object Names and IDs"). Names go into paths, so nothing else may pass. */
export const NAMESPACE_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** What containers are made from: `registry:port/path/name:tag@digest`. */
export const IMAGE_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9._/:@-]{0,254})$/;

/** Labels of every pod that is made here, by which leftovers are found. */
export const LABELS = {
  managedBy: 'app.kubernetes.io/managed-by',
  owner: 'ops-center/owner',
  server: 'ops-center/server',
  run: 'ops-center/run',
} as const;
export const MANAGED_BY = 'ops-center';

/** A label's value, or part of a name, for an id of any form: ids hold characters that labels may not. */
export function toLabelValue(id: string): string {
  return createHash('sha256').update(id).digest('hex').slice(0, 32);
}

/** The one pod of a run: whoever knows the run finds it. */
export function toPodName(runId: string): string {
  return `ops-run-${toLabelValue(runId)}`;
}
