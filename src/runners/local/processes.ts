import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as rest } from 'node:timers/promises';

/** How long the kernel may take to end a namespace whose first process was killed. */
const EXIT_TIMEOUT_MS = 5_000;
const POLL_MS = 5;
/** In the environment that bwrap is told to set: by it the processes of a run are found. Run ids are no secrets. */
const RUN_ID_VARIABLE = 'OPS_CENTER_RUN';

/** The part of a sandbox's command line that tells whose it is. */
export function runIdArguments(runId: string): string[] {
  return ['--setenv', RUN_ID_VARIABLE, runId];
}

/** The namespace of processes that a process is in; undefined when it is gone. */
export function findPidNamespace(pid: number | string): string | undefined {
  return tryOrUndefined(() => readlinkSync(`/proc/${pid}/ns/pid`));
}

/** Waits until no process is in a namespace. False when some still are after 5 s. */
export async function waitForEmptyNamespace(namespace: string): Promise<boolean> {
  return waitUntil(
    () => !listProcessIds().some((pid) => findPidNamespace(pid) === namespace && isAlive(pid)),
  );
}

/**
 * Ends the sandboxes of a run, whoever started them: killing bwrap ends the first process of its namespace, and with
 * that all others.
 * @returns true when nothing is left of them.
 */
export async function killSandboxes(runId: string): Promise<boolean> {
  const found = listSandboxProcesses(runId);
  const own = findPidNamespace('self');
  const namespaces = new Set(found.map(findPidNamespace));
  for (const pid of found) tryOrUndefined(() => process.kill(pid, 'SIGKILL'));
  const inside = [...namespaces].filter((each) => each !== undefined).filter((each) => each !== own);
  const empty = await Promise.all(inside.map(waitForEmptyNamespace));
  return empty.every(Boolean) && (await waitUntil(() => listSandboxProcesses(runId).length === 0));
}

/** Both processes of bwrap have its command line: the one outside, and the first one inside. */
function listSandboxProcesses(runId: string): number[] {
  const mark = `\0${runIdArguments(runId).join('\0')}\0`;
  return listProcessIds()
    .filter((pid) => tryOrUndefined(() => readFileSync(`/proc/${pid}/cmdline`, 'latin1'))?.includes(mark))
    .filter((pid) => tryOrUndefined(() => readlinkSync(`/proc/${pid}/exe`))?.endsWith('/bwrap'))
    .map(Number);
}

/**
 * What has ended stays in the list until its parent asks for it, which after the end of bwrap is somebody else.
 * Its first thread alone can have ended, so all are looked at.
 */
function isAlive(pid: string): boolean {
  const threads = tryOrUndefined(() => readdirSync(`/proc/${pid}/task`)) ?? [];
  const states = threads.map((thread) =>
    tryOrUndefined(() => readFileSync(`/proc/${pid}/task/${thread}/stat`, 'latin1')),
  );
  return states.some((stat) => stat !== undefined && !/\) [ZX] [^)]*$/.test(stat));
}

async function waitUntil(holds: () => boolean): Promise<boolean> {
  const deadlineMs = performance.now() + EXIT_TIMEOUT_MS;
  while (!holds()) {
    if (performance.now() > deadlineMs) return false;
    await rest(POLL_MS);
  }
  return true;
}

function listProcessIds(): string[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name));
}

/** A process can end between two looks at it. */
function tryOrUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
