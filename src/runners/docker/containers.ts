import { createHash } from 'node:crypto';
import type { Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { DOCKER_LAUNCH_COMMAND, SCRATCH_FOLDER } from './script.ts';

/** Body of "Create a container" (Engine API), as far as it is used. */
export type ContainerSpec = Readonly<Record<string, unknown>>;

/** A job, waiting for a job, or a test. */
export type ContainerPurpose = 'run' | 'warm' | 'test';

const DEFAULT_MEMORY_BYTES = 512 * 1024 * 1024;
const DEFAULT_PIDS = 256;
const SCRATCH_BYTES = 256 * 1024 * 1024;
/** An account that neither the image nor the host has. */
const UID = 10_001;

/** Labels that identify a container. An engine may have other users; their containers must not be touched. */
export function containerLabels(
  target: TargetServer,
  details: { purpose?: ContainerPurpose; runId?: string; instance?: string },
) {
  const { purpose, runId, instance } = details;
  return {
    'ops-center.server': target.serverId,
    // Hashed, so that other users of the engine do not see user ids.
    'ops-center.owner': createHash('sha256').update(target.owner).digest('hex').slice(0, 32),
    ...(purpose !== undefined && { 'ops-center.purpose': purpose }),
    ...(runId !== undefined && { 'ops-center.run': runId }),
    ...(instance !== undefined && { 'ops-center.instance': instance }),
  };
}

/**
 * Name of a run's container. Other containers of the run have names that begin with it. A pre-started
 * container gets this name later, which is not possible with labels. Hashed, because ids may hold characters
 * that names must not.
 */
export function containerName(runId: string): string {
  return `ops-center-run-${createHash('sha256').update(runId).digest('hex').slice(0, 32)}`;
}

/** True for the limits of pre-started containers. */
export function areDefaultLimits(limits: Limits): boolean {
  const { memoryBytes, cpus, pids, network } = limits;
  return (
    (memoryBytes ?? DEFAULT_MEMORY_BYTES) === DEFAULT_MEMORY_BYTES &&
    cpus === null &&
    (pids ?? DEFAULT_PIDS) === DEFAULT_PIDS &&
    network !== 'any'
  );
}

/**
 * A confined container: no network unless requested, no capabilities, and only memory and the user's volumes
 * are writable. It holds no secret, because every user of the engine can inspect it.
 * @param limits null: the defaults.
 */
export function createContainerSpec(
  config: DockerConfig,
  limits: Limits | null,
  labels: Readonly<Record<string, string>>,
): ContainerSpec {
  return {
    Image: config.image,
    Entrypoint: DOCKER_LAUNCH_COMMAND,
    Cmd: [],
    User: `${UID}:${UID}`,
    WorkingDir: '/',
    Env: [`HOME=${SCRATCH_FOLDER}`],
    Labels: labels,
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: false,
    Healthcheck: { Test: ['NONE'] },
    HostConfig: { ...CONFINEMENT, ...toHostLimits(limits), Mounts: config.volumes.map(toMount) },
  };
}

const CONFINEMENT = {
  AutoRemove: false,
  RestartPolicy: { Name: 'no' },
  // Output goes to the attached connection and to no file on the engine.
  LogConfig: { Type: 'none', Config: {} },
  Privileged: false,
  ReadonlyRootfs: true,
  CapDrop: ['ALL'],
  SecurityOpt: ['no-new-privileges'],
  IpcMode: 'private',
  Init: false,
  Ulimits: [{ Name: 'core', Soft: 0, Hard: 0 }],
};

function toHostLimits(limits: Limits | null) {
  const memory = limits?.memoryBytes ?? DEFAULT_MEMORY_BYTES;
  const scratch = Math.min(SCRATCH_BYTES, Math.floor(memory / 2));
  return {
    NetworkMode: limits?.network === 'any' ? 'bridge' : 'none',
    Memory: memory,
    MemorySwap: memory,
    PidsLimit: limits?.pids ?? DEFAULT_PIDS,
    ...(limits?.cpus == null ? {} : { NanoCpus: Math.round(limits.cpus * 1e9) }),
    Tmpfs: { [SCRATCH_FOLDER]: `rw,exec,nosuid,nodev,mode=1777,size=${scratch}` },
    ShmSize: scratch,
  };
}

/**
 * A structure, so that no character of a path can add options. The engine does not create missing folders.
 */
function toMount({ source, target, read_only }: DockerConfig['volumes'][number]) {
  const type = source.startsWith('/') ? 'bind' : 'volume';
  return { Type: type, Source: source, Target: target, ReadOnly: read_only };
}
