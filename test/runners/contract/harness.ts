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

/** Options of a run that differ from the defaults. */
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
  /** Reads until the run has reached a phase. */
  readUntilPhase: (phase: 'preparing' | 'started') => Promise<void>;
  /** Reads to the end. The outcome includes what was read before. */
  readToEnd: () => Promise<RunOutcome>;
}

export interface ContractHarness {
  subject: ContractSubject;
  open: () => Promise<void>;
  close: () => Promise<void>;
  runner: () => Runner;
  /** Creates a runner for the same servers, as in another instance. The caller closes it. */
  createOtherRunner: () => Promise<Runner>;
  start: (options: RunOptions) => StartedRun;
  run: (options: RunOptions) => Promise<RunOutcome>;
  /** What all runs left behind: marked processes on this machine, and what the subject lists. */
  listLeaks: () => Promise<string[]>;
  /** `it` with the subject's timeout. */
  test: (rule: string, body: () => Promise<void>) => void;
}

/** Longer than any test. */
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
  const runners: Runner[] = [];
  const createOtherRunner = async () => supervise(await subject.createRunner(), { log });
  const runner = () => {
    const [first] = runners;
    if (first === undefined) throw new Error('call open() before the tests');
    return first;
  };
  const start = ({ limits, target = subject.target(), signal, ...options }: RunOptions): StartedRun => {
    const job = createJob(options, mark);
    const stop = new AbortController();
    const signals = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
    const allLimits = { ...NO_LIMITS, ...subject.limits, ...limits };
    return observeRun(job.runId, runner().run(target, job, allLimits, signals), stop);
  };
  return {
    subject,
    open: async () => {
      runners.push(await createOtherRunner());
    },
    close: async () => {
      for (const instance of runners) await instance.close();
    },
    ...{ runner, createOtherRunner, start },
    run: (options) => start(options).readToEnd(),
    listLeaks: async () => [...listMarkedProcesses(mark), ...(await subject.listLeaks())],
    test: (rule, body) => {
      it(rule, body, subject.testTimeoutMs ?? 120_000);
    },
  };
}

function createJob({ env, ...options }: Partial<Job>, mark: string): Job {
  return {
    runId: randomUUID(),
    program: { command: 'true' },
    stdin: null,
    files: [],
    workdir: null,
    ...options,
    env: { ...env, [MARK_NAME]: mark },
  };
}

/** Asserts the promised order of the events of a run. */
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
  const readUntil = async (done: () => boolean, missing: string) => {
    while (!done()) {
      if ((await next()) === undefined)
        throw new Error(`the run ended without ${missing}: ${JSON.stringify(exit)} ${text().slice(0, 2000)}`);
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

/** The processes of this machine, in any namespace, with the marked environment; empty on systems other than Linux. */
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

/** The exit of a program that ended by itself. */
export const exitedWith = (code: number) => ({
  type: 'exit',
  cause: 'exited',
  code,
  signal: null,
  cleanup: 'verified',
  message: null,
});

/** What `cleanUp` reports of a run whose instance has ended, if nothing is left. */
export const cleanUpResultOf = ({ capabilities }: ContractSubject) =>
  capabilities.verifiesOrphans === false ? 'unverified' : 'verified';
