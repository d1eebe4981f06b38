import { readdirSync, readFileSync } from 'node:fs';
import type { TargetServer } from '../../../src/runners/runner.ts';
import { listSandboxesOf } from '../../support/sandbox-leaks.ts';

/** This machine as a server. */
export function localTarget(): TargetServer {
  return {
    ...{ serverId: 'local', owner: 'user:1', version: 1, config: { setup: null } },
    ...{ hostKey: null, workspacePath: null, jumpServers: new Map() },
  };
}

/** Current sandboxes, control groups and staged files of this process, without those of other tests. */
export const listLeaks = () => listSandboxesOf(process.pid);

/** The bwrap processes that a process has started, without those inside the sandboxes. */
export function listSandboxProcesses(parent: number): string[] {
  const processes = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return processes.filter((pid) => {
    const parentPid = /^PPid:\t(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1];
    return parentPid === String(parent) && read(`/proc/${pid}/cmdline`).includes('OPS_CENTER_RUN');
  });
}

/** Empty if the file no longer exists. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
