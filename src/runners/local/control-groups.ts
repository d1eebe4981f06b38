import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as rest } from 'node:timers/promises';
import type { Limits, OptionalLimit } from '../runner.ts';

const ROOT = '/sys/fs/cgroup';
const PREFIX = 'ops-center-run-';
/** Of `cpu.cfs_period_us` and the like: 100 ms, the kernel's default. */
const PERIOD_US = 100_000;
const REMOVE_TRIES = 200;
const REMOVE_POLL_MS = 10;

type LimitValues = Pick<Limits, 'memoryBytes' | 'cpus' | 'pids'>;
type CgroupLimit = Extract<OptionalLimit, keyof LimitValues>;

/** One group of the kernel that holds one run to its limits. */
export interface ControlGroup {
  add(pid: number): void;
  /** True when the kernel ended a process of it for want of memory. */
  hasRunOutOfMemory(): boolean;
  /** Kills what is in it and takes it away. False when that fails. */
  remove(): Promise<boolean>;
}

export interface ControlGroups {
  /** What this machine lets us enforce; tried, not guessed. */
  enforceableLimits: ReadonlySet<CgroupLimit>;
  /** Amounts that are null, or cannot be enforced, are not set. */
  create(runId: string, amounts: LimitValues): ControlGroup;
  /** Ends what is in the group of a run that another instance made. True when it is gone. */
  removeByRunId(runId: string): Promise<boolean>;
}

/** How one kind of limit is set: the files of version 1, and those of version 2. */
const SETTINGS: Record<CgroupLimit, { v1: LimitSetting; v2: LimitSetting }> = {
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
};
interface LimitSetting {
  controller: string;
  /** A name that begins with `?` is set where it exists. */
  files: (amount: number) => Record<string, number | string>;
}

/** Amounts that only show whether a limit can be set. */
const TRIAL_VALUES: Record<CgroupLimit, number> = { memoryBytes: 2 ** 28, cpus: 1, pids: 100 };

/** Finds out where groups may be made. Takes some milliseconds, and leaves nothing. */
export function createControlGroups(): ControlGroups {
  const locations = new Map<CgroupLimit, CgroupLocation>();
  for (const limit of Object.keys(SETTINGS) as CgroupLimit[]) {
    const location = listLocations(limit).find((each) => isUsable(each, limit));
    if (location !== undefined) locations.set(limit, location);
  }
  const parents = () => [...new Set([...locations.values()].map(({ folder }) => folder))];
  return {
    enforceableLimits: new Set(locations.keys()),
    create(runId, amounts) {
      const group = createControlGroup(parents().map((folder) => path.join(folder, toGroupName(runId))));
      try {
        for (const [limit, { folder, setting }] of locations)
          setLimit(path.join(folder, toGroupName(runId)), setting, amounts[limit]);
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

/** Where a group with a limit could be made: in our own group, and beside it where version 2 forbids that. */
function listLocations(limit: CgroupLimit): CgroupLocation[] {
  const { v1, v2 } = SETTINGS[limit];
  return readOrDefault('/proc/self/cgroup', '')
    .split('\n')
    .flatMap((line) => {
      const [, hierarchy, names, own] = /^(\d+):([^:]*):(\/.*)$/.exec(line) ?? [];
      if (hierarchy === undefined || names === undefined || own === undefined) return [];
      if (hierarchy !== '0')
        return names.split(',').includes(v1.controller)
          ? [{ folder: path.join(ROOT, names, own), setting: v1 }]
          : [];
      // A group with processes of its own passes no controllers on, so that its neighbour is what is left.
      return [own, path.dirname(own)].map((each) => ({ folder: path.join(ROOT, each), setting: v2 }));
    });
}

function isUsable({ folder, setting }: CgroupLocation, limit: CgroupLimit): boolean {
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

/** In version 2 one group has all limits, so that it may be there already. */
function setLimit(folder: string, setting: LimitSetting, amount: number | null): void {
  if (!existsSync(folder)) mkdirSync(folder);
  if (amount !== null) writeSetting(folder, setting, amount);
}

function writeSetting(folder: string, { files }: LimitSetting, amount: number): void {
  for (const [name, value] of Object.entries(files(amount))) {
    const file = path.join(folder, name.replace('?', ''));
    // Never made here: a plain file in a folder that is no group would look like a limit.
    if (!name.startsWith('?') || existsSync(file)) writeFileSync(file, String(value), { flag: 'r+' });
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
    await rest(REMOVE_POLL_MS);
  }
  return false;
}

function killProcesses(folder: string): void {
  for (const pid of readOrDefault(path.join(folder, 'cgroup.procs'), '').split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // It has ended meanwhile.
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

/** With the process that made it, for whoever finds one that was left. */
function toGroupName(runId: string): string {
  return `${PREFIX}${process.pid}-${toFileName(runId)}`;
}

/** The groups of a run, whatever process made them. */
function listGroupFolders(folder: string, runId: string): string[] {
  const names = readdirSync(folder).filter((name) => name.startsWith(PREFIX));
  return names
    .filter((name) => name.slice(PREFIX.length).replace(/^\d+-/, '') === toFileName(runId))
    .map((name) => path.join(folder, name));
}

function toFileName(runId: string): string {
  return runId.replaceAll(/[^\w-]/g, '_');
}

function readOrDefault(file: string, otherwise: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return otherwise;
  }
}
