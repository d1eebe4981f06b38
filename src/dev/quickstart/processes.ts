import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessInfo {
  pid: number;
  /** The command line; on systems without /proc the parts are those that `ps` shows, split at blanks. */
  argv: string[];
}

const hasProc = process.platform === 'linux';

/** True when a process of that id exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  if (hasProc && readState(pid) === 'Z') return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** All processes that can be seen, with their command lines. */
export function listProcesses(): ProcessInfo[] {
  if (!hasProc) return listWithPs();
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), argv: commandLine(Number(name)) ?? [] }))
    .filter((found) => found.argv.length > 0);
}

/** The command line of a process, undefined when it is gone. */
export function commandLine(pid: number): string[] | undefined {
  if (!hasProc) return listWithPs().find((found) => found.pid === pid)?.argv;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return undefined;
  }
}

/**
 * What tells this process from a later one that was given the same id: its start time. Undefined when the
 * process is gone.
 */
export function findStartTime(pid: number): string | undefined {
  if (!isAlive(pid)) return undefined;
  try {
    if (!hasProc)
      return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    // Field 22 of /proc/PID/stat (proc(5)); the name in field 2 may hold blanks and brackets.
    return readStatFields(pid)[19];
  } catch {
    return undefined;
  }
}

/**
 * Ends a process: sends each signal in turn and waits for the time given with it.
 * @returns false when it is still there after the last one.
 */
export async function stopProcess(
  pid: number,
  signals: readonly { signal: NodeJS.Signals; waitMs: number }[],
): Promise<boolean> {
  for (const { signal, waitMs } of signals) {
    try {
      process.kill(pid, signal);
    } catch {
      return true;
    }
    if (await waitUntilExited(pid, waitMs)) return true;
  }
  return false;
}

/** Waits for a process that may not be our child; false when the time is over first. */
async function waitUntilExited(pid: number, waitMs: number): Promise<boolean> {
  const untilMs = Date.now() + waitMs;
  while (isAlive(pid)) {
    if (Date.now() >= untilMs) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

function readStatFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** `Z`: ended, but not yet collected by its parent. */
function readState(pid: number): string | undefined {
  try {
    return readStatFields(pid)[0];
  } catch {
    return undefined;
  }
}

function listWithPs(): ProcessInfo[] {
  const text = execFileSync('ps', ['-axww', '-o', 'pid=,command='], { encoding: 'utf8' });
  return text
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(.*)$/.exec(line))
    .filter((match) => match !== null)
    .map((match) => ({ pid: Number(match[1]), argv: (match[2] ?? '').split(' ') }));
}
