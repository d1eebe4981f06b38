import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Duplex, Readable } from 'node:stream';
import type { Job, Limits } from '../runner.ts';
import type { ControlGroup, ControlGroups } from './control-groups.ts';
import { layOut, type LayoutOptions } from './layout.ts';
import { killSandboxes, namespaceIsEmpty, pidNamespace, runMark } from './processes.ts';
import { createStaging, type Staging } from './staging.ts';

/** Above what systems give to people, services and containers. */
const FIRST_UID = 1_900_000_000;
const UIDS = 1_000_000;
/** What holds where a job asks for nothing, so that one program does not take the machine. */
const DEFAULTS = { memoryBytes: 2 ** 30, cpus: null, pids: 256 };

/**
 * Runs inside, before the program: tells that it started, or why it cannot. The descriptor is closed to the
 * program, whose words would otherwise be taken for this script's.
 */
const START = [
  'cd -- "$1" 2>/dev/null || { echo folder >&3; exit 1; }',
  'command -v "$2" >/dev/null || { echo interpreter >&3; exit 1; }',
  'shift; echo started >&3; exec "$@" 3>&-',
].join('\n');

export interface SandboxDeps extends LayoutOptions {
  /** Absolute. */
  bwrap: string;
  groups: () => ControlGroups;
}

/** How bwrap ended. */
export interface SandboxEnd {
  /** As a shell tells it; null where the program did not come to its end. */
  code: number | null;
  outOfMemory: boolean;
  cleanup: 'verified' | 'unverified';
}

export interface Sandbox {
  stdout: Readable;
  stderr: Readable;
  /** `failed`: bwrap could not make the sandbox; it says why on `stderr`. */
  start: Promise<'started' | 'folder' | 'interpreter' | 'failed'>;
  /** Settles when nothing is left of it, or when that could not be seen. */
  end: Promise<SandboxEnd>;
  /** Ends everything in it. */
  kill: () => void;
}

/** Starts one job in a sandbox of its own. */
export async function startSandbox(
  job: Job,
  folder: string,
  limits: Limits,
  deps: SandboxDeps,
): Promise<Sandbox> {
  const staging = createStaging();
  const group = deps.groups().create(job.runId, amounts(limits));
  try {
    const stdout = await staging.pipe();
    const stderr = await staging.pipe();
    const outputs = [stdout.descriptor, stderr.descriptor] as const;
    const child = launch(job, folder, { staging, outputs, deps });
    return {
      ...{ stdout: stdout.readable, stderr: stderr.readable },
      ...watch(child, job.runId, group),
      kill: () => void child.kill('SIGKILL'),
    };
  } catch (error) {
    await group.remove();
    throw error;
  } finally {
    staging.close();
  }
}

function amounts({ memoryBytes, cpus, pids }: Limits) {
  return {
    memoryBytes: memoryBytes ?? DEFAULTS.memoryBytes,
    cpus: cpus ?? DEFAULTS.cpus,
    pids: pids ?? DEFAULTS.pids,
  };
}

interface Launch {
  staging: Staging;
  outputs: readonly [stdout: number, stderr: number];
  deps: SandboxDeps;
}

/** Descriptors of the child: after the usual three and the report of {@link START}. */
const STATUS = 4;
const GATE = 5;
const OPTIONS = 6;

/** What is staged goes to the child under the numbers that it has here, since bwrap is told these. */
function launch(job: Job, folder: string, { staging, outputs, deps }: Launch): ChildProcess {
  const stdin = job.stdin === null ? 'ignore' : staging.file(job.stdin);
  const passed: number[] = [];
  const pass = (descriptor: number) => OPTIONS + passed.push(descriptor);
  const renumbering: Staging = {
    ...staging,
    file: (content) => pass(staging.file(content)),
    open: (name) => pass(staging.open(name)),
  };
  const layout = layOut(job, folder, renumbering, deps);
  const args = [
    ...['--args', String(OPTIONS), '--json-status-fd', String(STATUS), '--block-fd', String(GATE)],
    ...[...runMark(job.runId), '--', '/bin/sh', '-c', START, 'sh', layout.folder, ...layout.command],
  ];
  const stdio = [stdin, ...outputs, 'pipe', 'pipe', 'pipe', staging.file(layout.options), ...passed] as const;
  // A user of its own for every run; where we are not root, this fails.
  const id = FIRST_UID + randomInt(UIDS);
  return spawn(deps.bwrap, args, { cwd: '/', env: {}, stdio: [...stdio], uid: id, gid: id });
}

function watch(child: ChildProcess, runId: string, group: ControlGroup): Pick<Sandbox, 'start' | 'end'> {
  const [, , , report, status, gate] = child.stdio as unknown as [
    never,
    never,
    never,
    Readable,
    Readable,
    Duplex,
  ];
  // Killed early, bwrap has not yet made its other half die with it; that half would hold the streams open.
  const exited = once(child, 'exit').then(
    () => child.signalCode === null || killSandboxes(runId),
    () => true,
  );
  const told: Told = { namespace: undefined, code: null };
  // A sandbox that was killed before it came to the gate; unread, the socket would not notice its end.
  gate.on('error', () => undefined).resume();
  const reading = readStatus(status, told, (pid) => {
    group.add(pid);
    gate.end('\n');
  }).catch(() => child.kill('SIGKILL'));
  return {
    start: readReport(report),
    end: Promise.all([exited, reading]).then(async ([ended]) => {
      const empty = told.namespace === undefined || (await namespaceIsEmpty(told.namespace));
      const outOfMemory = group.ranOutOfMemory();
      const removed = await group.remove();
      return { code: told.code, outOfMemory, cleanup: ended && empty && removed ? 'verified' : 'unverified' };
    }),
  };
}

/** The first line: bwrap itself holds the stream open as long as the program runs. */
async function readReport(report: Readable): Promise<Awaited<Sandbox['start']>> {
  let read = '';
  for await (const chunk of report.setEncoding('utf8')) {
    read += String(chunk);
    if (read.includes('\n')) break;
  }
  const line = read.trimEnd();
  return line === 'started' || line === 'folder' || line === 'interpreter' ? line : 'failed';
}

interface Told {
  /** Undefined when bwrap failed before it had one. */
  namespace: string | undefined;
  code: number | null;
}

/** Reads what bwrap tells: the first process of the sandbox, which waits at the gate, and at the end the code. */
async function readStatus(stream: Readable, told: Told, begun: (pid: number) => void): Promise<void> {
  for await (const line of createInterface({ input: stream })) {
    const status = JSON.parse(line) as { 'child-pid'?: number; 'exit-code'?: number };
    const pid = status['child-pid'];
    if (pid !== undefined) {
      told.namespace = pidNamespace(pid);
      begun(pid);
    }
    told.code = status['exit-code'] ?? told.code;
  }
}
