import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { readCommandLine, listProcesses } from '../../src/dev/quickstart/processes.ts';

/** The first user id that the local runner assigns to sandboxes. */
const FIRST_UID = 1_900_000_000;
const GROUP_PATTERN = /^ops-center-run-(\d+)-/;
const TEMPORARY_PATTERN = /^ops-center-(?:file|pipe|bait)-(\d+)-/;
/** Contains a file for each process of this checkout that may create sandboxes, named after its process id. */
const CREATORS_FOLDER = path.resolve(import.meta.dirname, '..', '..', '.data', 'test-hosts', 'local');

/**
 * Records that this process creates sandboxes. Their names contain its process id. So leaks of this checkout are
 * recognized after the process has ended, even if other checkouts run tests on the same machine.
 */
export function registerSandboxCreator(): void {
  mkdirSync(CREATORS_FOLDER, { recursive: true });
  writeFileSync(path.join(CREATORS_FOLDER, String(process.pid)), '');
}

/** Called by the last run after its check, because process ids are reused. */
export function clearSandboxCreators(): void {
  rmSync(CREATORS_FOLDER, { recursive: true, force: true });
}

/** Remaining sandboxes of this checkout's tests, and orphaned sandboxes. */
export function listSandboxLeaks(): string[] {
  const makers = new Set(existsSync(CREATORS_FOLDER) ? readdirSync(CREATORS_FOLDER) : []);
  return listSandboxArtifacts((maker) => makers.has(String(maker)), true);
}

/** Existing sandboxes that one process has created. */
export function listSandboxesOf(pid: number): string[] {
  return listSandboxArtifacts((maker) => maker === pid, false);
}

function listSandboxArtifacts(isOurs: (maker: number) => boolean, withOrphans: boolean): string[] {
  const named = (folder: string, pattern: RegExp) =>
    readdirSync(folder)
      .filter((name) => isOurs(Number(pattern.exec(name)?.[1])))
      .map((name) => path.join(folder, name));
  return [
    ...listProcesses()
      .filter(({ pid }) => uidOf(pid) >= FIRST_UID)
      .filter(({ pid }) => isOurs(creatorOf(pid)) || (withOrphans && creatorOf(pid) === 1))
      .map(({ pid }) => `process ${pid}: ${(readCommandLine(pid) ?? ['ended']).join(' ').slice(0, 80)}`),
    ...listControlGroupFolders().flatMap((folder) =>
      named(folder, GROUP_PATTERN).map((name) => `control group ${name}`),
    ),
    ...named(tmpdir(), TEMPORARY_PATTERN).map((name) => `folder ${name}`),
  ];
}

/** The process that created a sandbox, from its control group; before it has one, from its parent processes. */
function creatorOf(pid: number): number {
  const group = /\/ops-center-run-(\d+)-/.exec(read(`/proc/${pid}/cgroup`))?.[1];
  if (group !== undefined) return Number(group);
  const parent = Number(/^PPid:\t(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0);
  return uidOf(parent) >= FIRST_UID ? creatorOf(parent) : parent;
}

/** 0 when the process has just ended. */
function uidOf(pid: number): number {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? 0;
}

/** Folders that may contain control groups of runs: our own group in each hierarchy, in version 2 also its parent. */
export function listControlGroupFolders(): string[] {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  const folders = lines.flatMap((line) => {
    const [, hierarchy, names = '', own = '/'] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    const each = hierarchy === '0' ? [own, path.dirname(own)] : [own];
    return each.map((name) => path.join('/sys/fs/cgroup', names, name));
  });
  return [...new Set(folders)].filter((folder) => existsSync(folder));
}

/** Empty when the process has ended. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
