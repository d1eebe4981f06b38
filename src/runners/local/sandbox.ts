import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Duplex, Readable } from 'node:stream';
import type { Job, Limits } from '../runner.ts';
import type { ControlGroup, ControlGroups } from './control-groups.ts';
import { createBwrapArguments, type SandboxOptions } from './bwrap-arguments.ts';
import { killSandboxes, waitForEmptyNamespace, findPidNamespace, runIdArguments } from './processes.ts';
import { createStaging, type Staging } from './staging.ts';

/** Above the ids that systems assign to users, services and containers. */
const FIRST_UID = 1_900_000_000;
const UID_COUNT = 1_000_000;
/** Limits of a job that requests none, so that one program cannot exhaust the machine. */
const DEFAULT_LIMITS = { memoryBytes: 2 ** 30, cpus: null, pids: 256 };

/**
 * Runs in the sandbox before the program. Reports on descriptor 3 that the program starts, or why it cannot. The
 * program does not inherit the descriptor, so that it cannot forge the report.
 */
const START_SCRIPT = [
  'cd -- "$1" 2>/dev/null || { echo folder >&3; exit 1; }',
  'command -v "$2" >/dev/null || { echo interpreter >&3; exit 1; }',
  'shift; echo started >&3; exec "$@" 3>&-',
].join('\n');

export interface SandboxDeps extends SandboxOptions {
  /** Absolute path. */
  bwrap: string;
  getControlGroups: () => ControlGroups;
}

export interface SandboxExit {
  /** As a shell reports it; null when the program was killed with its sandbox. */
  code: number | null;
  isOutOfMemory: boolean;
  cleanup: 'verified' | 'unverified';
}

export interface Sandbox {
  stdout: Readable;
  stderr: Readable;
  /** `failed`: bwrap could not create the sandbox; the reason is on `stderr`. */
  start: Promise<'started' | 'folder' | 'interpreter' | 'failed'>;
  /** Resolves after the cleanup was verified, or could not be verified in time. */
  end: Promise<SandboxExit>;
  /** Kills all processes in the sandbox. */
  kill: () => void;
}

/** Starts a job in its own sandbox. */
export async function startSandbox(
  job: Job,
  folder: string,
  limits: Limits,
  deps: SandboxDeps,
): Promise<Sandbox> {
  const staging = createStaging();
  const group = deps.getControlGroups().create(job.runId, toLimitValues(limits));
  try {
    const stdout = await staging.pipe();
    const stderr = await staging.pipe();
    const outputs = [stdout.descriptor, stderr.descriptor] as const;
    const child = startBwrap(job, folder, { staging, outputs, deps });
    return {
      ...{ stdout: stdout.readable, stderr: stderr.readable },
      ...watchBwrap(child, job.runId, group),
      kill: () => void child.kill('SIGKILL'),
    };
  } catch (error) {
    await group.remove();
    throw error;
  } finally {
    staging.close();
  }
}

function toLimitValues({ memoryBytes, cpus, pids }: Limits) {
  return {
    memoryBytes: memoryBytes ?? DEFAULT_LIMITS.memoryBytes,
    cpus: cpus ?? DEFAULT_LIMITS.cpus,
    pids: pids ?? DEFAULT_LIMITS.pids,
  };
}

interface BwrapOptions {
  staging: Staging;
  outputs: readonly [stdout: number, stderr: number];
  deps: SandboxDeps;
}

/** Descriptors of the child after stdin, stdout, stderr and the report of {@link START_SCRIPT}. */
const STATUS_DESCRIPTOR = 4;
const GATE_DESCRIPTOR = 5;
const OPTIONS_DESCRIPTOR = 6;

/** Passes the staged descriptors to the child and uses their numbers in the child as arguments of bwrap. */
function startBwrap(job: Job, folder: string, { staging, outputs, deps }: BwrapOptions): ChildProcess {
  const stdin = job.stdin === null ? 'ignore' : staging.file(job.stdin);
  const passed: number[] = [];
  const pass = (descriptor: number) => OPTIONS_DESCRIPTOR + passed.push(descriptor);
  const renumbering: Staging = {
    ...staging,
    file: (content) => pass(staging.file(content)),
    open: (name) => pass(staging.open(name)),
  };
  const bwrapArguments = createBwrapArguments(job, folder, renumbering, deps);
  const args = [
    ...[
      '--args',
      String(OPTIONS_DESCRIPTOR),
      '--json-status-fd',
      String(STATUS_DESCRIPTOR),
      '--block-fd',
      String(GATE_DESCRIPTOR),
    ],
    ...[
      ...runIdArguments(job.runId),
      '--',
      '/bin/sh',
      '-c',
      START_SCRIPT,
      'sh',
      bwrapArguments.folder,
      ...bwrapArguments.command,
    ],
  ];
  const stdio = [
    stdin,
    ...outputs,
    'pipe',
    'pipe',
    'pipe',
    staging.file(bwrapArguments.options),
    ...passed,
  ] as const;
  // Every run gets its own user id. Fails if this process is not root.
  const id = FIRST_UID + randomInt(UID_COUNT);
  return spawn(deps.bwrap, args, { cwd: '/', env: {}, stdio: [...stdio], uid: id, gid: id });
}

function watchBwrap(child: ChildProcess, runId: string, group: ControlGroup): Pick<Sandbox, 'start' | 'end'> {
  const [, , , report, status, gate] = child.stdio as unknown as [
    never,
    never,
    never,
    Readable,
    Readable,
    Duplex,
  ];
  // If bwrap is killed early, before it has set up die-with-parent, its second process would keep the streams open.
  const exited = once(child, 'exit').then(
    () => child.signalCode === null || killSandboxes(runId),
    () => true,
  );
  const bwrapStatus: BwrapStatus = { namespace: undefined, code: null };
  // A sandbox can be killed before it reads the gate. The socket detects its end only while it is read.
  gate.on('error', () => undefined).resume();
  const reading = readStatus(status, bwrapStatus, (pid) => {
    group.add(pid);
    gate.end('\n');
  }).catch(() => child.kill('SIGKILL'));
  return {
    start: readReport(report),
    end: Promise.all([exited, reading]).then(async ([ended]) => {
      const empty =
        bwrapStatus.namespace === undefined || (await waitForEmptyNamespace(bwrapStatus.namespace));
      const isOutOfMemory = group.hasRunOutOfMemory();
      const removed = await group.remove();
      return {
        code: bwrapStatus.code,
        isOutOfMemory,
        cleanup: ended && empty && removed ? 'verified' : 'unverified',
      };
    }),
  };
}

/** Reads only the first line: bwrap keeps the stream open as long as the program runs. */
async function readReport(report: Readable): Promise<Awaited<Sandbox['start']>> {
  let text = '';
  for await (const chunk of report.setEncoding('utf8')) {
    text += String(chunk);
    if (text.includes('\n')) break;
  }
  const line = text.trimEnd();
  return line === 'started' || line === 'folder' || line === 'interpreter' ? line : 'failed';
}

interface BwrapStatus {
  /** Undefined when bwrap failed before it created one. */
  namespace: string | undefined;
  code: number | null;
}

/** Reads the status of bwrap: the pid of the first process, which waits at the gate, and at the end the exit code. */
async function readStatus(
  stream: Readable,
  bwrapStatus: BwrapStatus,
  onStarted: (pid: number) => void,
): Promise<void> {
  for await (const line of createInterface({ input: stream })) {
    const status = JSON.parse(line) as { 'child-pid'?: number; 'exit-code'?: number };
    const pid = status['child-pid'];
    if (pid !== undefined) {
      bwrapStatus.namespace = findPidNamespace(pid);
      onStarted(pid);
    }
    bwrapStatus.code = status['exit-code'] ?? bwrapStatus.code;
  }
}
