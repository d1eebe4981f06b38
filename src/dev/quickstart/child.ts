import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { StartError } from '../../cli/start-error.ts';

/** The user that a child runs as; undefined: the same as we. */
export interface RunAs {
  uid: number;
  gid: number;
}

export interface ChildOptions {
  command: string;
  args: readonly string[];
  /** The whole environment: a child never inherits ours. */
  env: Record<string, string>;
  cwd: string;
  /** What it prints is appended here. */
  logFile: string;
  runAs?: RunAs | undefined;
  /** Ends a command that runs to its end. */
  signal?: AbortSignal | undefined;
}

export interface Child {
  readonly pid: number;
  /** Resolves with words for how it ended. */
  readonly ended: Promise<string>;
}

/**
 * Starts a long-lived child in a process group of its own, so that a Ctrl-C in the terminal reaches us
 * alone and we stop the parts in order.
 * @throws StartError when the command cannot be run.
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
      resolve(signal === null ? `ended with code ${code ?? 0}` : `was ended by ${signal}`);
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', (error) => {
      reject(new StartError(`${options.command} could not be run: ${error.message}`));
    });
  });
  if (child.pid === undefined) throw new StartError(`${options.command} could not be run`);
  return { pid: child.pid, ended };
}

/**
 * Runs a command to its end.
 * @returns what it printed, both streams together.
 * @throws StartError with the last lines when it ends with anything but 0.
 */
export async function runToCompletion(options: Omit<ChildOptions, 'logFile'>): Promise<string> {
  const child = spawn(options.command, options.args, {
    cwd: options.cwd,
    env: options.env,
    stdio: ['ignore', 'pipe', 'pipe'],
    // A Ctrl-C in the terminal is for us to act on.
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
      reject(new StartError(`${options.command} could not be run: ${error.message}`));
    });
    child.once('close', (exitCode, signal) => {
      resolve(exitCode ?? signal ?? 'unknown');
    });
  });
  if (code !== 0) throw new StartError(`${options.command} failed (${code}):\n${lastLines(output)}`);
  return output;
}

/** The end of a log file, for messages. */
export async function readLogTail(logFile: string): Promise<string> {
  return lastLines(await readFile(logFile, 'utf8').catch(() => ''));
}

function lastLines(text: string): string {
  return text.trim().split('\n').slice(-15).join('\n');
}
