import type { V1Pod } from '@kubernetes/client-node';
import type { Limits, TargetServer } from '../runner.ts';
import type { KubernetesConfig } from './config.ts';
import { INPUT_FOLDER, POD_COMMAND } from './launcher.ts';
import { toLabelValue, LABELS, MANAGED_BY, toPodName } from './object-names.ts';

export const CONTAINER_NAME = 'job';

const MIB = 1024 * 1024;
const DEFAULT_MEMORY_BYTES = 512 * MIB;
const DEFAULT_CPUS = 1;
/** Resource requests. They are small, so that many pods fit on a node; the limits apply all the same. */
const REQUESTED_MEMORY_BYTES = 64 * MIB;
const REQUESTED_CPUS = 0.05;
/** Limit of each disk volume. */
const DISK_LIMIT = '1Gi';

/** Time to pull the image and to detect the end, on top of the run's own time. */
export const START_TIMEOUT_MS = 180_000;
const END_TIMEOUT_MS = 60_000;

const UID = 10_001;

/**
 * Bare pod of one run. It passes the Pod Security Standard `restricted`. It waits for a command
 * ({@link POD_COMMAND}). Its node ends it after the run's time, even if no instance is left to do so.
 */
export function createPodManifest(
  target: TargetServer<KubernetesConfig>,
  runId: string,
  limits: Limits,
): V1Pod {
  const lifetimeMs = limits.timeoutMs + START_TIMEOUT_MS + END_TIMEOUT_MS;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: toPodName(runId),
      labels: {
        [LABELS.managedBy]: MANAGED_BY,
        [LABELS.owner]: toLabelValue(target.owner),
        [LABELS.server]: toLabelValue(target.serverId),
        [LABELS.run]: toLabelValue(runId),
      },
    },
    spec: {
      restartPolicy: 'Never',
      terminationGracePeriodSeconds: 0,
      activeDeadlineSeconds: Math.ceil(lifetimeMs / 1000),
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: UID,
        runAsGroup: UID,
        fsGroup: UID,
        seccompProfile: { type: 'RuntimeDefault' },
      },
      containers: [
        {
          name: CONTAINER_NAME,
          image: target.config.image,
          command: [...POD_COMMAND],
          resources: toResources(limits),
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [
            { name: 'input', mountPath: INPUT_FOLDER },
            { name: 'scratch', mountPath: '/tmp' },
          ],
        },
      ],
      volumes: [
        { name: 'input', emptyDir: { sizeLimit: DISK_LIMIT } },
        { name: 'scratch', emptyDir: { sizeLimit: DISK_LIMIT } },
      ],
    },
  };
}

function toResources({ memoryBytes, cpus }: Limits) {
  const memory = memoryBytes ?? DEFAULT_MEMORY_BYTES;
  const cpu = cpus ?? DEFAULT_CPUS;
  return {
    requests: {
      memory: String(Math.min(memory, REQUESTED_MEMORY_BYTES)),
      cpu: toCpuQuantity(Math.min(cpu, REQUESTED_CPUS)),
      'ephemeral-storage': '16Mi',
    },
    limits: { memory: String(memory), cpu: toCpuQuantity(cpu), 'ephemeral-storage': DISK_LIMIT },
  };
}

/** In millicores, the smallest unit of Kubernetes. */
function toCpuQuantity(cpus: number): string {
  return `${Math.max(1, Math.round(cpus * 1000))}m`;
}
