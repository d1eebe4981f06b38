import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { commandLine, listProcesses } from '../../src/dev/quickstart/processes.ts';

/** As the runner gives them to its sandboxes. */
const FIRST_UID = 1_900_000_000;
const GROUP_PATTERN = /^ops-center-run-(\d+)-/;
const TEMPORARY_PATTERN = /^ops-center-(?:file|pipe|bait)-(\d+)-/;
/** A file for each process of this checkout that can make sandboxes, named after its id. */
const CREATORS_FOLDER = path.resolve(import.meta.dirname, '..', '..', '.data', 'test-hosts', 'local');

/**
 * Notes that this process makes sandboxes. What it leaves bears its id, and is known by that as this checkout's when
 * it has ended: others test on the same machine.
 */
export function registerSandboxCreator(): void {
  mkdirSync(CREATORS_FOLDER, { recursive: true });
  writeFileSync(path.join(CREATORS_FOLDER, String(process.pid)), '');
}

/** For the run that ends last, when it has looked: ids are given anew. */
export function clearSandboxCreators(): void {
  rmSync(CREATORS_FOLDER, { recursive: true, force: true });
}

/** What is left of sandboxes that this checkout's tests have made, and of those that nobody looks after any more. */
export function listSandboxLeaks(): string[] {
  const makers = new Set(existsSync(CREATORS_FOLDER) ? readdirSync(CREATORS_FOLDER) : []);
  return listSandboxArtifacts((maker) => makers.has(String(maker)), true);
}

/** What is there now of the sandboxes that one process has made. */
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
      .map(({ pid }) => `process ${pid}: ${(commandLine(pid) ?? ['gone']).join(' ').slice(0, 80)}`),
    ...listControlGroupFolders().flatMap((folder) =>
      named(folder, GROUP_PATTERN).map((name) => `control group ${name}`),
    ),
    ...named(tmpdir(), TEMPORARY_PATTERN).map((name) => `folder ${name}`),
  ];
}

/** Which process made a sandbox: its control group tells; before it is in one, those that it descends from. */
function creatorOf(pid: number): number {
  const group = /\/ops-center-run-(\d+)-/.exec(read(`/proc/${pid}/cgroup`))?.[1];
  if (group !== undefined) return Number(group);
  const parent = Number(/^PPid:\t(\d+)$/m.exec(read(`/proc/${pid}/status`))?.[1] ?? 0);
  return uidOf(parent) >= FIRST_UID ? creatorOf(parent) : parent;
}

/** 0 for what has just gone. */
function uidOf(pid: number): number {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? 0;
}

/** Where groups of runs can be: in our own of each hierarchy, and in version 2 beside it. */
export function listControlGroupFolders(): string[] {
  const lines = readFileSync('/proc/self/cgroup', 'utf8').trim().split('\n');
  const folders = lines.flatMap((line) => {
    const [, hierarchy, names = '', own = '/'] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? [];
    const each = hierarchy === '0' ? [own, path.dirname(own)] : [own];
    return each.map((name) => path.join('/sys/fs/cgroup', names, name));
  });
  return [...new Set(folders)].filter((folder) => existsSync(folder));
}

/** Empty for what is gone. */
function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
