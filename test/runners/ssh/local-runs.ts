import { expect } from '@jest/globals';
import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { Job } from '../../../src/runners/runner.ts';
import { encodeSshJob, type SshJobServer } from '../../../src/runners/ssh/run.ts';
import {
  createLaunchCommand,
  createCleanupCommand,
  NOTHING_FOUND,
} from '../../../src/runners/ssh/scripts.ts';
import { afterThisTest } from '../../lib/ssh/servers.ts';

const MARKER = 'a'.repeat(32);
const SUPERVISOR_PROOF = 'b'.repeat(32);
export const SECRETS = { marker: MARKER, supervisorProof: SUPERVISOR_PROOF, watcherProof: 'c'.repeat(32) };
/** A frame of the launcher or the watcher. */
export const frame = (word: string) => `\x1e${MARKER}${word}\n`;
/** A server without settings of its own. */
export const createJobServer = (config: Partial<SshJobServer['config']> = {}): SshJobServer => ({
  workspacePath: null,
  config: { environment: null, interpreters: null, ...config },
});
export const LAUNCH_COMMAND = createLaunchCommand(MARKER);
/** The launcher runs, and waits for the job. */
export const READY = frame('R');
/** The report at the end of a run, by whom the frame of its start says. */
export const toReport = (started: string, state = 'V') =>
  frame(`${started === frame('S') ? SECRETS.supervisorProof : SECRETS.watcherProof}${state}`);

/** Creates a folder of programs for a PATH, as on a host with that shell; for busybox only its own programs. */
export function createPath(shell: string): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'ops-center-shell-'));
  afterThisTest(() => rmSync(folder, { recursive: true }));
  const isBusybox = path.basename(shell) === 'busybox';
  const programs = isBusybox
    ? execFileSync(shell, ['--list'], { encoding: 'utf8' }).trim().split('\n')
    : readdirSync('/usr/bin');
  for (const program of programs)
    if (program !== 'sh') symlinkSync(isBusybox ? shell : `/usr/bin/${program}`, path.join(folder, program));
  symlinkSync(shell, path.join(folder, 'sh'));
  return folder;
}

/** The script within a command of `toShellCommand`. */
export function decodeShellCommand(command: string): string {
  const words = Array.from(command.matchAll(/ '([^']*)'/g), ([, word = '']) => word).slice(1);
  return execFileSync('printf', ['%b', ...words], { encoding: 'utf8' });
}

interface LauncherResult {
  stdout: string;
  stderr: string;
  code: number | null;
  signal: string | null;
}

interface LaunchOptions {
  /** Whether the app ends the lease after this output. */
  isDone?: (stdout: string) => boolean;
  /** Variables that the account's environment has. */
  accountEnv?: Record<string, string>;
  /** Changes the folder of programs. */
  changePath?: ChangePath;
  /** Settings of the server. */
  config?: Partial<SshJobServer['config']>;
  /** Starts the launcher by a program with these arguments. */
  wrapper?: readonly string[];
  /** Whether a search for the run's processes works on the host. */
  isSearchable?: boolean;
}

/** Changes a folder of programs. */
export type ChangePath = (folder: string) => void;

/** Replaces a program of a PATH by a shell script. */
export const replaceProgram =
  (name: string, script: string): ChangePath =>
  (folder) => {
    const file = path.join(folder, name);
    rmSync(file, { force: true });
    writeFileSync(file, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  };

/** Removes the programs of a PATH whose names begin with one of these. */
export const removePrograms =
  (...names: string[]): ChangePath =>
  (folder) => {
    for (const file of readdirSync(folder))
      if (names.some((name) => file === name || /^(perl|python)/.exec(file)?.[0] === name))
        rmSync(path.join(folder, file));
  };

/** Runs the launcher as an SSH server does: in a new session, with its input open until the program has ended. */
export async function launch(
  shell: string,
  overrides: Partial<Job>,
  {
    isDone = () => false,
    accountEnv = {},
    changePath = () => undefined,
    config = {},
    wrapper = [],
    isSearchable = true,
  }: LaunchOptions = {},
): Promise<LauncherResult> {
  const folder = createPath(shell);
  changePath(folder);
  const env = { ...accountEnv, PATH: folder };
  const runId = randomUUID();
  const job: Job = {
    runId,
    program: { command: 'true' },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
    ...overrides,
  };
  const [program, ...args] = [...wrapper, path.join(folder, 'sh'), '-c', LAUNCH_COMMAND];
  const child = spawn(program, args, { env, detached: true });
  const chunks: Buffer[] = [];
  const readOutput = () => Buffer.concat(chunks).toString('latin1');
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    if (readOutput() === READY) {
      child.stdin.write(encodeSshJob(job, createJobServer(config), SECRETS));
    }
    if (isDone(readOutput())) child.stdin.end();
  });
  child.once('exit', () => child.stdin.end());
  const stderr = text(child.stderr);
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  const cleanup = execFileSync('sh', ['-c', createCleanupCommand(job.runId)], {
    env: { PATH: folder },
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  expect(cleanup === NOTHING_FOUND).toBe(isSearchable);
  const output = readOutput();
  expect(output.slice(0, READY.length)).toBe(READY);
  return { stdout: output.slice(READY.length), stderr: await stderr, code, signal };
}
