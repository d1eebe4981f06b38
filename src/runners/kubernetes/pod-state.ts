import { z } from 'zod';

const ContainerState = z.object({
  waiting: z.object({ reason: z.string().optional() }).optional(),
  running: z.unknown().optional(),
  terminated: z.object({ reason: z.string().optional() }).optional(),
});

/** The used fields of a pod. All others are dropped. */
export const PodState = z.object({
  metadata: z.object({
    name: z.string(),
    // Sent back in a URL.
    resourceVersion: z.string().max(64).default('0'),
    creationTimestamp: z.string().nullish(),
    deletionTimestamp: z.string().nullish(),
  }),
  spec: z.object({ activeDeadlineSeconds: z.number().optional() }).optional(),
  status: z
    .object({
      phase: z.string().optional(),
      reason: z.string().optional(),
      conditions: z
        .array(z.object({ type: z.string(), status: z.string(), reason: z.string().optional() }))
        .nullish(),
      containerStatuses: z.array(z.object({ state: ContainerState.optional() })).nullish(),
    })
    .optional(),
});
export type PodState = z.output<typeof PodState>;

type ContainerStatus = z.output<typeof ContainerState>;

function readContainerState(pod: PodState): ContainerStatus {
  return pod.status?.containerStatuses?.[0]?.state ?? {};
}

/** True if the container runs and the pod is not being deleted. */
export function isRunning(pod: PodState): boolean {
  return readContainerState(pod).running !== undefined && pod.metadata.deletionTimestamp == null;
}

/** True if nothing in the pod will run any more. */
export function hasEnded(pod: PodState): boolean {
  const phase = pod.status?.phase;
  return phase === 'Succeeded' || phase === 'Failed' || readContainerState(pod).terminated !== undefined;
}

/** True if the kernel killed the container for lack of memory. */
export function wasOomKilled(pod: PodState): boolean {
  return readContainerState(pod).terminated?.reason === 'OOMKilled';
}

export function isUnschedulable(pod: PodState): boolean {
  const conditions = pod.status?.conditions ?? [];
  return conditions.some(
    ({ type, status, reason }) => type === 'PodScheduled' && status === 'False' && reason === 'Unschedulable',
  );
}

const IMAGE_NOT_PULLED =
  'The image %s cannot be pulled: its registry does not have it or requires a login, or the nodes of the cluster cannot ' +
  'reach it.';
const NO_SHELL = 'The container does not start: the image %s needs a shell (sh).';
const NOT_CREATED = 'The cluster cannot create the container from the image %s.';

/**
 * Reasons of kubelet after which the container will not start. Kubelet repeats ImagePullBackOff, with pauses,
 * once pulling has failed. `%s` stands for the image.
 */
const FINAL_WAITING_REASONS: Readonly<Record<string, string>> = {
  ImagePullBackOff: IMAGE_NOT_PULLED,
  InvalidImageName: IMAGE_NOT_PULLED,
  ErrImageNeverPull: IMAGE_NOT_PULLED,
  CreateContainerConfigError: NOT_CREATED,
  CreateContainerError: NOT_CREATED,
  RunContainerError: NO_SHELL,
};

/** Why a pod will never start, for users. Undefined while it still may. */
export function findStartFailure(pod: PodState, image: string): string | undefined {
  const { waiting, terminated } = readContainerState(pod);
  const reason = waiting?.reason;
  if (reason !== undefined && Object.hasOwn(FINAL_WAITING_REASONS, reason))
    return FINAL_WAITING_REASONS[reason]?.replace('%s', () => image);
  if (pod.status?.reason === 'Evicted') return EVICTED;
  if (terminated !== undefined || hasEnded(pod)) return NO_SHELL.replace('%s', () => image);
  return undefined;
}

export const EVICTED =
  'The cluster evicted the pod: its node ran short of memory or disk, or the run used more disk than it may.';
