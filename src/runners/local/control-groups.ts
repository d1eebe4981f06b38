import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Limits, OptionalLimit } from '../runner.ts';

const ROOT = '/sys/fs/cgroup';
const PREFIX = 'ops-center-run-';
/** Period of the CPU quota: 100 ms, the kernel's default. */
const PERIOD_US = 100_000;
const REMOVE_TRIES = 200;
const REMOVE_POLL_MS = 10;

/** Share of the CPU against the app's group, which has 100: the app's requests come first on a busy machine. */
const CPU_WEIGHT = 5;
/** A weight of 100 in the units of version 1. */
const DEFAULT_SHARES = 1_024;

type LimitValues = Pick<Limits, 'memoryBytes' | 'cpus' | 'pids'>;
export type CgroupLimit = Extract<OptionalLimit, keyof LimitValues>;
/** The limits, and the weight, which is the same for every run and is left out where it cannot be set. */
type CgroupSetting = CgroupLimit | 'cpuWeight';

/** The control group (cgroup) that enforces the limits of one run. */
export interface ControlGroup {
  add(pid: number): void;
  /** True when the kernel killed a process of the group because it was out of memory. */
  hasRunOutOfMemory(): boolean;
  /** Kills the processes in the group and removes it. False when that fails. */
  remove(): Promise<boolean>;
}

export interface ControlGroups {
  /** The limits that can be enforced on this machine, found by trying each. */
  enforceableLimits: ReadonlySet<CgroupLimit>;
  /** Values that are null or cannot be enforced are not set. */
  create(runId: string, values: LimitValues): ControlGroup;
  /** Removes the groups of a run with their processes, also those of other instances. False when that fails. */
  removeByRunId(runId: string): Promise<boolean>;
}

/** The files that set each limit, in cgroup version 1 and 2. */
const SETTINGS: Record<CgroupSetting, { v1: LimitSetting; v2: LimitSetting }> = {
  memoryBytes: {
    v1: {
      controller: 'memory',
      files: (bytes) => ({ 'memory.limit_in_bytes': bytes, '?memory.memsw.limit_in_bytes': bytes }),
    },
    v2: { controller: 'memory', files: (bytes) => ({ 'memory.max': bytes, '?memory.swap.max': 0 }) },
  },
  cpus: {
    v1: {
      controller: 'cpu',
      files: (cpus) => ({ 'cpu.cfs_period_us': PERIOD_US, 'cpu.cfs_quota_us': Math.ceil(cpus * PERIOD_US) }),
    },
    v2: {
      controller: 'cpu',
      files: (cpus) => ({ 'cpu.max': `${Math.ceil(cpus * PERIOD_US)} ${PERIOD_US}` }),
    },
  },
  pids: {
    v1: { controller: 'pids', files: (count) => ({ 'pids.max': count }) },
    v2: { controller: 'pids', files: (count) => ({ 'pids.max': count }) },
  },
  cpuWeight: {
    v1: {
      controller: 'cpu',
      files: (weight) => ({ 'cpu.shares': Math.round((weight * DEFAULT_SHARES) / 100) }),
    },
    v2: { controller: 'cpu', files: (weight) => ({ 'cpu.weight': weight }) },
  },
};
interface LimitSetting {
  controller: string;
  /** A file whose name begins with `?` is written only if it exists. */
  files: (value: number) => Record<string, number | string>;
}

/** Values to try whether a limit can be set. */
const TRIAL_VALUES: Record<CgroupSetting, number> = {
  memoryBytes: 2 ** 28,
  cpus: 1,
  pids: 100,
  cpuWeight: CPU_WEIGHT,
};

/** Finds where groups can be created, by creating and removing one per limit. Takes a few milliseconds. */
export function createControlGroups(): ControlGroups {
  const locations = new Map<CgroupSetting, CgroupLocation>();
  for (const limit of Object.keys(SETTINGS) as CgroupSetting[]) {
    const location = listLocations(limit).find((candidate) => isUsable(candidate, limit));
    if (location !== undefined) locations.set(limit, location);
  }
  const parents = () => [...new Set([...locations.values()].map(({ folder }) => folder))];
  return {
    enforceableLimits: new Set([...locations.keys()].filter((name) => name !== 'cpuWeight')),
    create(runId, values) {
      const group = createControlGroup(parents().map((folder) => path.join(folder, toGroupName(runId))));
      try {
        for (const [limit, { folder, setting }] of locations)
          setLimit(
            path.join(folder, toGroupName(runId)),
            setting,
            limit === 'cpuWeight' ? CPU_WEIGHT : values[limit],
          );
        return group;
      } catch (error) {
        void group.remove();
        throw error;
      }
    },
    removeByRunId: (runId) =>
      createControlGroup(parents().flatMap((folder) => listGroupFolders(folder, runId))).remove(),
  };
}

function createControlGroup(folders: readonly string[]): ControlGroup {
  return {
    add(pid) {
      for (const folder of folders)
        writeFileSync(path.join(folder, 'cgroup.procs'), String(pid), { flag: 'r+' });
    },
    hasRunOutOfMemory: () => folders.some((folder) => /^oom_kill [1-9]/m.test(readMemoryEvents(folder))),
    async remove() {
      const removed = await Promise.all(folders.map(removeFolder));
      return removed.every(Boolean);
    },
  };
}

interface CgroupLocation {
  folder: string;
  setting: LimitSetting;
}

/** Candidate parents for a group with a limit: this process's group, in version 2 also its parent. */
function listLocations(limit: CgroupSetting): CgroupLocation[] {
  const { v1, v2 } = SETTINGS[limit];
  return readOrDefault('/proc/self/cgroup', '')
    .split('\n')
    .flatMap((line) => {
      const [, hierarchy, names, ownGroup] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [];
      if (hierarchy === undefined || names === undefined || ownGroup === undefined) return [];
      if (hierarchy !== '0')
        return names.split(',').includes(v1.controller)
          ? [{ folder: path.join(ROOT, names, ownGroup), setting: v1 }]
          : [];
      // In version 2 a group that contains processes cannot delegate controllers to child groups.
      return [ownGroup, path.dirname(ownGroup)].map((candidate) => ({
        folder: path.join(ROOT, candidate),
        setting: v2,
      }));
    });
}

function isUsable({ folder, setting }: CgroupLocation, limit: CgroupSetting): boolean {
  const trial = path.join(folder, toGroupName('trial'));
  try {
    mkdirSync(trial);
    writeSetting(trial, setting, TRIAL_VALUES[limit]);
    return true;
  } catch {
    return false;
  } finally {
    if (existsSync(trial)) rmdirSync(trial);
  }
}

/** In version 2 all limits are in one group, so the folder may exist already. */
function setLimit(folder: string, setting: LimitSetting, value: number | null): void {
  if (!existsSync(folder)) mkdirSync(folder);
  if (value !== null) writeSetting(folder, setting, value);
}

function writeSetting(folder: string, { files }: LimitSetting, value: number): void {
  for (const [name, content] of Object.entries(files(value))) {
    const file = path.join(folder, name.replace('?', ''));
    // 'r+' never creates the file: in a folder that is no cgroup, a plain file would look like a limit.
    if (!name.startsWith('?') || existsSync(file)) writeFileSync(file, String(content), { flag: 'r+' });
  }
}

async function removeFolder(folder: string): Promise<boolean> {
  for (let tries = 0; tries < REMOVE_TRIES; tries += 1) {
    try {
      rmdirSync(folder);
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    }
    killProcesses(folder);
    await delay(REMOVE_POLL_MS);
  }
  return false;
}

function killProcesses(folder: string): void {
  for (const pid of readOrDefault(path.join(folder, 'cgroup.procs'), '').split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // The process has ended meanwhile.
    }
  }
}

function readMemoryEvents(folder: string): string {
  const files = existsSync(folder) ? readdirSync(folder) : [];
  return ['memory.events', 'memory.oom_control']
    .filter((file) => files.includes(file))
    .map((file) => readOrDefault(path.join(folder, file), ''))
    .join('\n');
}

/** Contains a process id, so that remaining groups can be assigned to the process that created them. */
function toGroupName(runId: string): string {
  return `${PREFIX}${process.pid}-${toFileName(runId)}`;
}

/** The groups of a run, created by any process. */
function listGroupFolders(folder: string, runId: string): string[] {
  const names = readdirSync(folder).filter((name) => name.startsWith(PREFIX));
  return names
    .filter((name) => name.slice(PREFIX.length).replace(/^\d+-/, '') === toFileName(runId))
    .map((name) => path.join(folder, name));
}

function toFileName(runId: string): string {
  return runId.replaceAll(/[^\w-]/g, '_');
}

function readOrDefault(file: string, fallback: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return fallback;
  }
}
