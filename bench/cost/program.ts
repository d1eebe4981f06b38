import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ClientResult, ClientSettings } from './client.ts';

const run = promisify(execFile);
const fileOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** Sends requests from a process of its own, so that the work of sending is not measured. */
export async function sendLoad(settings: ClientSettings): Promise<ClientResult> {
  const options = { maxBuffer: 64 * 1024 * 1024 };
  const { stdout } = await run(process.execPath, [fileOf('client.ts'), JSON.stringify(settings)], options);
  return JSON.parse(stdout) as ClientResult;
}

export interface Program {
  pid: number;
  stop(): Promise<void>;
}

/** @param args of Node, or of another program. */
export function startProgram(command: string, args: string[], env = process.env): Program {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'inherit'], env });
  const exited = once(child, 'exit');
  return {
    pid: child.pid ?? 0,
    async stop() {
      child.kill();
      await exited;
    },
  };
}

export async function startUpstream(): Promise<Program & { url: string }> {
  const child = spawn(process.execPath, [fileOf('upstream.ts')], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  const [url] = (await once(child.stdout.setEncoding('utf8'), 'data')) as [string];
  return {
    url: url.trim(),
    pid: child.pid ?? 0,
    async stop() {
      child.kill();
      await exited;
    },
  };
}

/** `getconf CLK_TCK` of every Linux that Node supports. */
const TICKS_PER_S = 100;

/** Processor time that a process and its children have taken so far, in us. Linux only. */
export function readCpuUs(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second member, the name of the program, can hold blanks.
  const members = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(members[11]) + Number(members[12]);
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  const ownUs = (ticks / TICKS_PER_S) * 1_000_000;
  return children.reduce((sum, child) => sum + readCpuUs(Number(child)), ownUs);
}
