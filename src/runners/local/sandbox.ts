import { spawn, type ChildProcess } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { constants, setPriority } from 'node:os';
import type { Duplex, Readable } from 'node:stream';
import type { Job, Limits } from '../runner.ts';
import type { CgroupLimit, ControlGroup, ControlGroups } from './control-groups.ts';
import { createBwrapArguments, type SandboxOptions } from './bwrap-arguments.ts';
import { listInheritableDescriptors } from './descriptors.ts';
import { killSandboxes, waitForEmptyNamespace, findPidNamespace, runIdArguments } from './processes.ts';
import { createStaging, type Staging } from './staging.ts';
import { readStartReport, readStatusLines, type StartReport } from './start-report.ts';

/** Above the ids that systems assign to users, services and containers. */
const FIRST_UID = 1_900_000_000;
const UID_COUNT = 1_000_000;
/** Limits of a job that requests none, so that one program cannot exhaust the machine. */
const DEFAULT_LIMITS = { memoryBytes: 2 ** 30, cpus: null, pids: 256 };

/**
 * Runs in the sandbox before the program. Reports on descriptor 3 that the program starts, or why it cannot. The
 * program does not inherit the descriptor, so that it cannot forge the report. The job's variables are set here by
 * commands of the shell alone: a variable such as LD_PRELOAD acts on the program, and on no process before it.
 */
const START_SCRIPT = [
  '. "$1" 2>/dev/null',
  'cd -- "$2" 2>/dev/null || { echo folder >&3; exit 1; }',
  'command -v "$3" >/dev/null || { echo interpreter >&3; exit 1; }',
  'shift 2; echo started >&3; exec "$@" 3>&-',
].join('\n');

/** What the operator allows one run at most; null is unlimited. */
export type LocalCeilings = Record<CgroupLimit, number | null>;

export interface SandboxDeps extends SandboxOptions {
  /** Absolute path. */
  bwrap: string;
  ceilings: LocalCeilings;
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
  /** After `failed` the reason is on `stderr`. */
  start: Promise<StartReport>;
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
  const group = deps.getControlGroups().create(job.runId, toLimitValues(limits, deps.ceilings));
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

function toLimitValues(limits: Limits, ceilings: LocalCeilings) {
  const lower = (limit: CgroupLimit) => {
    const value = limits[limit] ?? DEFAULT_LIMITS[limit];
    const ceiling = ceilings[limit];
    return value === null || ceiling === null ? (value ?? ceiling) : Math.min(value, ceiling);
  };
  return { memoryBytes: lower('memoryBytes'), cpus: lower('cpus'), pids: lower('pids') };
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
  const { options, command, folder: start, variables } = createBwrapArguments(job, folder, renumbering, deps);
  const stdio = withoutInherited(
    [stdin, ...outputs, 'pipe', 'pipe', 'pipe', staging.file(options), ...passed],
    () => staging.open('/dev/null'),
  );
  const args = [
    ...['--args', String(OPTIONS_DESCRIPTOR)],
    ...['--json-status-fd', String(STATUS_DESCRIPTOR), '--block-fd', String(GATE_DESCRIPTOR)],
    ...stdio.closed.flatMap((descriptor) => ['--args', String(descriptor)]),
    ...runIdArguments(job.runId),
    ...['--', '/bin/sh', '-c', START_SCRIPT, 'sh', variables, start, ...command],
  ];
  // Every run gets its own user id. Fails if this process is not root.
  const id = FIRST_UID + randomInt(UID_COUNT);
  return spawn(deps.bwrap, args, { cwd: '/', env: {}, stdio: stdio.items, uid: id, gid: id });
}

type StdioItem = 'ignore' | 'pipe' | number;

/**
 * Keeps the descriptors that this process was started with out of the child: each is replaced by an empty file. bwrap
 * reads options from it (`--args`), finds none, and closes it.
 */
function withoutInherited(passed: StdioItem[], openEmpty: () => number) {
  const closed = listInheritableDescriptors().filter((descriptor) => descriptor >= passed.length);
  const items: StdioItem[] = Array.from(
    { length: Math.max(passed.length, ...closed.map((each) => each + 1)) },
    (_, index) => passed[index] ?? 'ignore',
  );
  for (const descriptor of closed) items[descriptor] = openEmpty();
  return { items, closed };
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
    // Also where control groups have no weights, the app's requests come first on a busy machine. Not where the kernel
    // groups processes by session: it compares priorities within a group only, and a sandbox becomes a session of its
    // own. The priority of that group is of no use: now the process is still in the group of the app, and later its
    // program can begin another session.
    setPriority(pid, constants.priority.PRIORITY_LOW);
    gate.end('\n');
  }).catch(() => child.kill('SIGKILL'));
  return {
    start: readStartReport(report, () => void child.kill('SIGKILL')),
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

interface BwrapStatus {
  /** Undefined when bwrap failed before it created one. */
  namespace: string | undefined;
  code: number | null;
}

async function readStatus(
  stream: Readable,
  bwrapStatus: BwrapStatus,
  onStarted: (pid: number) => void,
): Promise<void> {
  for await (const { 'child-pid': pid, 'exit-code': code } of readStatusLines(stream)) {
    // The first process waits at the gate.
    if (pid !== undefined) {
      bwrapStatus.namespace = findPidNamespace(pid);
      onStarted(pid);
    }
    bwrapStatus.code = code ?? bwrapStatus.code;
  }
}
