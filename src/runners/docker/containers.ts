import { createHash } from 'node:crypto';
import type { Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { LAUNCHER, SCRATCH_FOLDER } from './script.ts';

/** The body of "Create a container" (Engine API), as far as it is used. */
export type ContainerSpec = Readonly<Record<string, unknown>>;

/** What a container is for: a job, or waiting for one. */
export type ContainerPurpose = 'run' | 'warm' | 'test';

const DEFAULT_MEMORY_BYTES = 512 * 1024 * 1024;
const DEFAULT_PIDS = 256;
const SCRATCH_BYTES = 256 * 1024 * 1024;
/** No account of the image's, and none of the host's. */
const UID = 10_001;

/** What says whose a container is: on an engine that others use too, nothing else may be touched. */
export function containerLabels(
  target: TargetServer,
  rest: { purpose?: ContainerPurpose; runId?: string; instance?: string },
) {
  const { purpose, runId, instance } = rest;
  return {
    'ops-center.server': target.serverId,
    // Ids of people are no business of whoever else uses the engine.
    'ops-center.owner': createHash('sha256').update(target.owner).digest('hex').slice(0, 32),
    ...(purpose !== undefined && { 'ops-center.purpose': purpose }),
    ...(runId !== undefined && { 'ops-center.run': runId }),
    ...(instance !== undefined && { 'ops-center.instance': instance }),
  };
}

/**
 * The name of a run's container; names that begin with it are of the run too. A container that was made before its
 * job was known gets it later, which labels cannot do. Hashed: ids have characters that names have not.
 */
export function containerName(runId: string): string {
  return `ops-center-run-${createHash('sha256').update(runId).digest('hex').slice(0, 32)}`;
}

/** True for limits that containers have which were made before the job was known. */
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
 * A container that can do little: no network unless asked for, no rights, nothing to write to but memory and the
 * user's volumes. Nothing secret is in it, since everyone who may use the engine can look.
 * @param limits null: the defaults.
 */
export function createContainerSpec(
  config: DockerConfig,
  limits: Limits | null,
  labels: Readonly<Record<string, string>>,
): ContainerSpec {
  return {
    Image: config.image,
    Entrypoint: LAUNCHER,
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
  // What is printed goes to whoever is attached, and to no file of the engine.
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

/** As a structure, so that no character of a path can add to it. Folders that are missing are not made. */
function toMount({ source, target, read_only }: DockerConfig['volumes'][number]) {
  const type = source.startsWith('/') ? 'bind' : 'volume';
  return { Type: type, Source: source, Target: target, ReadOnly: read_only };
}
