import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** How long the kernel may take to end a PID namespace after its first process was killed. */
const EXIT_TIMEOUT_MS = 5_000;
const POLL_MS = 5;
/** The variable that bwrap sets for a run. Its processes are found by it. Run ids are not secret. */
const RUN_ID_VARIABLE = 'OPS_CENTER_RUN';

/** The arguments of bwrap that identify the run. */
export function runIdArguments(runId: string): string[] {
  return ['--setenv', RUN_ID_VARIABLE, runId];
}

/** The PID namespace of a process; undefined when the process has ended. */
export function findPidNamespace(pid: number | string): string | undefined {
  return tryOrUndefined(() => readlinkSync(`/proc/${pid}/ns/pid`));
}

/** Waits until a namespace has no process. False when it still has one after 5 s. */
export async function waitForEmptyNamespace(namespace: string): Promise<boolean> {
  return waitUntil(
    () => !listProcessIds().some((pid) => findPidNamespace(pid) === namespace && hasRunningThread(pid)),
  );
}

/**
 * Kills the sandboxes of a run, also those of other instances. Killing bwrap ends the first process of its namespace,
 * and with it all others.
 * @returns true when no process is left.
 */
export async function killSandboxes(runId: string): Promise<boolean> {
  const pids = listSandboxProcesses(runId);
  const ownNamespace = findPidNamespace('self');
  const namespaces = new Set(pids.map(findPidNamespace));
  for (const pid of pids) tryOrUndefined(() => process.kill(pid, 'SIGKILL'));
  const inside = [...namespaces].filter((name) => name !== undefined).filter((name) => name !== ownNamespace);
  const empty = await Promise.all(inside.map(waitForEmptyNamespace));
  return empty.every(Boolean) && (await waitUntil(() => listSandboxProcesses(runId).length === 0));
}

/** bwrap has two processes with the same command line: one outside, and the first one inside the sandbox. */
function listSandboxProcesses(runId: string): number[] {
  const marker = `\0${runIdArguments(runId).join('\0')}\0`;
  return listProcessIds()
    .filter((pid) => tryOrUndefined(() => readFileSync(`/proc/${pid}/cmdline`, 'latin1'))?.includes(marker))
    .filter((pid) => tryOrUndefined(() => readlinkSync(`/proc/${pid}/exe`))?.endsWith('/bwrap'))
    .map(Number);
}

/**
 * An ended process stays in /proc until its parent waits for it; after the end of bwrap that is another process.
 * Checks all threads, since the first one can end alone.
 */
function hasRunningThread(pid: string): boolean {
  const threads = tryOrUndefined(() => readdirSync(`/proc/${pid}/task`)) ?? [];
  const states = threads.map((thread) =>
    tryOrUndefined(() => readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1')),
  );
  return states.some((stat) => stat !== undefined && !/\) [ZX] [^)]*$/.test(stat));
}

async function waitUntil(isDone: () => boolean): Promise<boolean> {
  const deadlineMs = performance.now() + EXIT_TIMEOUT_MS;
  while (!isDone()) {
    if (performance.now() > deadlineMs) return false;
    await delay(POLL_MS);
  }
  return true;
}

function listProcessIds(): string[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name));
}

/** A process can end between two reads of its files. */
function tryOrUndefined<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
