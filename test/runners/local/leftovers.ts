import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import type { Target } from '../../../src/runners/runner.ts';

/** This machine as a server. */
export function localTarget(): Target {
  return {
    ...{ serverId: 'local', owner: 'user:1', version: 1, config: {} },
    ...{ hostKey: null, workspacePath: null, references: new Map() },
  };
}

/** Sandboxes, control groups and staged files of this process that are there now: other tests have their own. */
export function findLeftovers(): string[] {
  const groups = ownGroups().flatMap((folder) => (existsSync(folder) ? readdirSync(folder) : []));
  return [
    ...findSandboxes(process.pid).map((pid) => `sandbox ${pid}`),
    ...groups.filter((name) => name.startsWith(`ops-center-run-${process.pid}-`)),
    ...readdirSync(tmpdir()).filter((name) => STAGED.test(name)),
  ];
}

const STAGED = new RegExp(`^ops-center-(file|pipe|bait)-${process.pid}-`);

/** The processes of bwrap that a process has started: those outside of the sandboxes. */
export function findSandboxes(parent: number): string[] {
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return processes.filter((pid) => {
    const parentPid = /^PPid:\t(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1];
    return parentPid === String(parent) && read(`/proc/${pid}/cmdline`).includes('OPS_CENTER_RUN');
  });
}

/** Where this process is in each hierarchy of control groups. */
function ownGroups(): string[] {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  return lines.map((line) => line.replace(/^\d+:([^:]*):/, '/sys/fs/cgroup/$1'));
}

/** Empty for what is gone. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
