import { createHash } from 'node:crypto';

/**
 * DNS-1123 label (Kubernetes, "Object Names and IDs"). Names are inserted into paths, so nothing else is
 * accepted.
 */
export const NAMESPACE_PATTERN = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/** Image reference: `registry:port/path/name:tag@digest`. */
export const IMAGE_PATTERN = /^[A-Za-z0-9](?:[A-Za-z0-9._/:@-]{0,254})$/;

/** Labels of every created pod. Cleanup finds pods by them. */
export const LABELS = {
  managedBy: 'app.kubernetes.io/managed-by',
  owner: 'ops-center/owner',
  server: 'ops-center/server',
  run: 'ops-center/run',
} as const;
export const MANAGED_BY = 'ops-center';

/** Hashes an id for use in a label value or a name, because ids may hold characters that labels must not. */
export function toLabelValue(id: string): string {
  return createHash('sha256').update(id).digest('hex').slice(0, 32);
}

/** Name of a run's only pod, derived from the run id. */
export function toPodName(runId: string): string {
  return `ops-run-${toLabelValue(runId)}`;
}
