import { expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createLog } from '../../../src/lib/log.ts';
import type {
  ExitEvent,
  Job,
  Limits,
  RunEvent,
  Runner,
  OutputStream,
  TargetServer,
} from '../../../src/runners/runner.ts';
import { supervise } from '../../../src/runners/supervise.ts';
import type { ContractSubject } from '../contract.ts';

/** What is said about a run; all else is as a user would leave it. */
export interface RunOptions extends Partial<Job> {
  limits?: Partial<Limits>;
  target?: TargetServer;
  signal?: AbortSignal;
}

export interface RunOutcome {
  stdout: Buffer;
  stderr: Buffer;
  phases: string[];
  exit: ExitEvent;
}

/** A run that a test reads step by step. */
export interface StartedRun {
  runId: string;
  events: AsyncGenerator<RunEvent, void>;
  stop: AbortController;
  /** Reads until the output so far holds `text`. */
  readUntil: (text: string) => Promise<void>;
  /** Reads on until a phase has come. */
  readUntilPhase: (readUntilPhase: 'preparing' | 'started') => Promise<void>;
  /** Reads the rest; the outcome holds what was read before, too. */
  readToEnd: () => Promise<RunOutcome>;
}

export interface ContractHarness {
  subject: ContractSubject;
  open: () => Promise<void>;
  close: () => Promise<void>;
  runner: () => Runner;
  /** Another instance's runner for the same servers. The caller closes it. */
  createOtherRunner: () => Promise<Runner>;
  start: (order: RunOptions) => StartedRun;
  run: (order: RunOptions) => Promise<RunOutcome>;
  /** What is left of all runs: marked processes on this machine, and what the subject finds. */
  listLeaks: () => Promise<string[]>;
  /** `it` with the subject's time-out. */
  test: (rule: string, body: () => Promise<void>) => void;
}

/** So long that no test waits for it. */
const TIMEOUT_MS = 600_000;
const NO_LIMITS: Limits = {
  timeoutMs: TIMEOUT_MS,
  maxOutputBytes: 2 ** 30,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};
const MARK_NAME = 'CONTRACT_MARK';

export function createContractHarness(subject: ContractSubject): ContractHarness {
  const log = createLog('silent');
  const mark = randomUUID();
  const running: Runner[] = [];
  const another = async () => supervise(await subject.createRunner(), { log });
  const runner = () => {
    const [first] = running;
    if (first === undefined) throw new Error('the runner is made before the tests');
    return first;
  };
  const start = ({ limits, target = subject.target(), signal, ...order }: RunOptions): StartedRun => {
    const job = createJob(order, mark);
    const stop = new AbortController();
    const signals = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
    const all = { ...NO_LIMITS, ...subject.limits, ...limits };
    return observeRun(job.runId, runner().run(target, job, all, signals), stop);
  };
  return {
    subject,
    open: async () => {
      running.push(await another());
    },
    close: async () => {
      for (const each of running) await each.close();
    },
    ...{ runner, createOtherRunner: another, start },
    run: (order) => start(order).readToEnd(),
    listLeaks: async () => [...listMarkedProcesses(mark), ...(await subject.listLeaks())],
    test: (rule, body) => {
      it(rule, body, subject.testTimeoutMs ?? 120_000);
    },
  };
}

function createJob({ env, ...order }: Partial<Job>, mark: string): Job {
  return {
    runId: randomUUID(),
    program: { command: 'true' },
    stdin: null,
    files: [],
    workdir: null,
    ...order,
    env: { ...env, [MARK_NAME]: mark },
  };
}

/** Holds every run to the promises about the order of its events. */
function observeRun(
  runId: string,
  events: AsyncGenerator<RunEvent, void>,
  stop: AbortController,
): StartedRun {
  const bytes: Record<OutputStream, Buffer[]> = { stdout: [], stderr: [] };
  const phases: string[] = [];
  let exit: ExitEvent | undefined;
  const next = async (): Promise<RunEvent | undefined> => {
    const result = await events.next();
    if (result.done === true) return undefined;
    const event = result.value;
    expect(exit).toBeUndefined();
    if (event.type === 'exit') exit = event;
    else if (event.type === 'phase') phases.push(event.phase);
    else {
      expect(phases).toContain('started');
      bytes[event.stream].push(Buffer.from(event.data));
    }
    return event;
  };
  const text = () => Buffer.concat([...bytes.stdout, ...bytes.stderr]).toString();
  const readUntil = async (done: () => boolean, what: string) => {
    while (!done()) {
      if ((await next()) === undefined)
        throw new Error(`the run ended without ${what}: ${JSON.stringify(exit)} ${text().slice(0, 2000)}`);
    }
  };
  return {
    ...{ runId, events, stop },
    readUntil: (part) => readUntil(() => text().includes(part), part),
    readUntilPhase: (phase) => readUntil(() => phases.includes(phase), phase),
    readToEnd: async () => {
      while ((await next()) !== undefined);
      if (exit === undefined) throw new Error('the run ended without an exit');
      expect(['preparing,started', 'preparing', '']).toContain(phases.join());
      return { stdout: Buffer.concat(bytes.stdout), stderr: Buffer.concat(bytes.stderr), phases, exit };
    },
  };
}

/** The processes of this machine, in whatever namespace, whose environment was marked; none elsewhere than on Linux. */
function listMarkedProcesses(mark: string): string[] {
  if (process.platform !== 'linux') return [];
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && contains(`/proc/${name}/environ`, `${MARK_NAME}=${mark}`))
    .map((pid) => `process ${pid}: ${readText(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`);
}

function contains(file: string, text: string): boolean {
  return readText(file).includes(text);
}

/** Empty for a process that has ended meanwhile. */
function readText(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** How a program ends that nobody stopped. */
export const exitedWith = (code: number) => ({
  type: 'exit',
  cause: 'exited',
  code,
  signal: null,
  cleanup: 'verified',
  message: null,
});
