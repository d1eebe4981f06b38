import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface ProcessInfo {
  pid: number;
  /** Command line. Without /proc it is the output of `ps`, split at spaces. */
  argv: string[];
}

const hasProc = process.platform === 'linux';

/** Returns true if the process exists, also if it belongs to another user. */
export function isProcessRunning(pid: number): boolean {
  if (hasProc && readState(pid) === 'Z') return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** Lists all visible processes. */
export function listProcesses(): ProcessInfo[] {
  if (!hasProc) return listWithPs();
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), argv: readCommandLine(Number(name)) ?? [] }))
    .filter((found) => found.argv.length > 0);
}

/** Returns the command line of a process; undefined if it does not exist. */
export function readCommandLine(pid: number): string[] | undefined {
  if (!hasProc) return listWithPs().find((found) => found.pid === pid)?.argv;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return undefined;
  }
}

/**
 * Returns the start time of a process, which distinguishes it from a later process with the same id. Undefined if the
 * process does not exist.
 */
export function findStartTime(pid: number): string | undefined {
  if (!isProcessRunning(pid)) return undefined;
  try {
    if (!hasProc)
      return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim();
    // Field 22 of /proc/PID/stat (proc(5)). The name in field 2 can contain spaces and brackets.
    return readStatFields(pid)[19];
  } catch {
    return undefined;
  }
}

/**
 * Stops a process: sends each signal in order and waits for the given time after each.
 * @returns false if the process still exists after the last signal.
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

/** Waits for the exit of a process, which need not be a child; false on timeout. */
async function waitUntilExited(pid: number, waitMs: number): Promise<boolean> {
  const untilMs = Date.now() + waitMs;
  while (isProcessRunning(pid)) {
    if (Date.now() >= untilMs) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
}

function readStatFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** `Z`: zombie, not yet reaped by its parent. */
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
