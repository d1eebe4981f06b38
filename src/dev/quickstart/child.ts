import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { StartError } from '../../lib/errors.ts';

/** Unix user that a child process runs as; undefined: the user of this process. */
export interface RunAs {
  uid: number;
  gid: number;
}

export interface ChildOptions {
  command: string;
  args: readonly string[];
  /** Complete environment: a child inherits no variables of this process. */
  env: Record<string, string>;
  cwd: string;
  /** Output of the child is appended to this file. */
  logFile: string;
  runAs?: RunAs | undefined;
  /** Kills a command of `runToCompletion` when aborted. */
  signal?: AbortSignal | undefined;
}

export interface Child {
  readonly pid: number;
  /** Resolves with a text that describes the exit. */
  readonly ended: Promise<string>;
}

/**
 * Starts a long-running child in its own process group. A Ctrl-C in the terminal then reaches this process only,
 * which stops its children in order.
 * @throws StartError if the command cannot be run.
 */
export async function startChild(options: ChildOptions): Promise<Child> {
  const log = openSync(options.logFile, 'a', 0o600);
  const child = spawn(options.command, options.args, {
    cwd: options.cwd,
    env: options.env,
    detached: true,
    stdio: ['ignore', log, log],
    ...(options.runAs ?? {}),
  });
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => {
      resolve(signal === null ? `exited with code ${code ?? 0}` : `was killed by ${signal}`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      reject(new StartError(`${options.command} cannot be run: ${error.message}`));
    });
  });
  if (child.pid === undefined) throw new StartError(`${options.command} cannot be run`);
  return { pid: child.pid, ended };
}

/**
 * Runs a command and waits for its exit.
 * @returns its standard output and standard error together.
 * @throws StartError with the last lines of output if the exit code is not 0.
 */
export async function runToCompletion(options: Omit<ChildOptions, 'logFile'>): Promise<string> {
  const child = spawn(options.command, options.args, {
    cwd: options.cwd,
    env: options.env,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A Ctrl-C in the terminal must reach this process only.
    detached: true,
    ...(options.runAs ?? {}),
    ...(options.signal ? { signal: options.signal } : {}),
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-20_000);
    });
  }
  const code = await new Promise<number | string>((resolve, reject) => {
    child.once('error', (error) => {
      reject(new StartError(`${options.command} cannot be run: ${error.message}`));
    });
    child.once('close', (exitCode, signal) => {
      resolve(exitCode ?? signal ?? 'unknown');
    });
  });
  if (code !== 0) throw new StartError(`${options.command} failed (${code}):\n${lastLines(output)}`);
  return output;
}

/** Returns the last lines of a log file, for messages. */
export async function readLogTail(logFile: string): Promise<string> {
  return lastLines(await readFile(logFile, 'utf8').catch(() => ''));
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-15).join('\n');
}
