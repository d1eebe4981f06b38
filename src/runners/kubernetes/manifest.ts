import type { V1Pod } from '@kubernetes/client-node';
import type { Limits, Target } from '../runner.ts';
import type { KubernetesConfig } from './config.ts';
import { FOLDER, WAITER } from './launcher.ts';
import { labelOf, LABELS, MANAGER, podName } from './names.ts';

export const CONTAINER = 'job';

const MIB = 1024 * 1024;
const DEFAULT_MEMORY_BYTES = 512 * MIB;
const DEFAULT_CPUS = 1;
/** What is set aside for a pod: little, so that many fit on a node; the limits hold all the same. */
const REQUESTED_MEMORY_BYTES = 64 * MIB;
const REQUESTED_CPUS = 0.05;
/** Of what is written, outside of memory. */
const DISK = '1Gi';

/** For the image to be pulled, and for the end to be noticed: on top of a run's own time. */
export const START_TIMEOUT_MS = 180_000;
const END_TIMEOUT_MS = 60_000;

const UID = 10_001;

/**
 * The bare pod of one run; passes the Pod Security Standard `restricted`. It waits until it is told what to do
 * ({@link WAITER}), and is ended by its node after the run's time even when nobody here is left to do it.
 */
export function podManifest(target: Target<KubernetesConfig>, runId: string, limits: Limits): V1Pod {
  const lifetimeMs = limits.timeoutMs + START_TIMEOUT_MS + END_TIMEOUT_MS;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: podName(runId),
      labels: {
        [LABELS.managedBy]: MANAGER,
        [LABELS.owner]: labelOf(target.owner),
        [LABELS.server]: labelOf(target.serverId),
        [LABELS.run]: labelOf(runId),
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
          name: CONTAINER,
          image: target.config.image,
          command: [...WAITER],
          resources: resources(limits),
          securityContext: {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'] },
          },
          volumeMounts: [
            { name: 'input', mountPath: FOLDER },
            { name: 'scratch', mountPath: '/tmp' },
          ],
        },
      ],
      volumes: [
        { name: 'input', emptyDir: { sizeLimit: DISK } },
        { name: 'scratch', emptyDir: { sizeLimit: DISK } },
      ],
    },
  };
}

function resources({ memoryBytes, cpus }: Limits) {
  const memory = memoryBytes ?? DEFAULT_MEMORY_BYTES;
  const cpu = cpus ?? DEFAULT_CPUS;
  return {
    requests: {
      memory: String(Math.min(memory, REQUESTED_MEMORY_BYTES)),
      cpu: quantity(Math.min(cpu, REQUESTED_CPUS)),
      'ephemeral-storage': '16Mi',
    },
    limits: { memory: String(memory), cpu: quantity(cpu), 'ephemeral-storage': DISK },
  };
}

/** In thousandths, the finest that Kubernetes knows. */
function quantity(cpus: number): string {
  return `${Math.max(1, Math.round(cpus * 1000))}m`;
}
