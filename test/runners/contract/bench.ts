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
  Stream,
  Target,
} from '../../../src/runners/runner.ts';
import { supervise } from '../../../src/runners/supervise.ts';
import type { ContractSubject } from '../contract.ts';

/** What is said about a run; all else is as a user would leave it. */
export interface Order extends Partial<Job> {
  limits?: Partial<Limits>;
  target?: Target;
  signal?: AbortSignal;
}

export interface Outcome {
  stdout: Buffer;
  stderr: Buffer;
  phases: string[];
  exit: ExitEvent;
}

/** A run that a test reads step by step. */
export interface Underway {
  runId: string;
  events: AsyncGenerator<RunEvent, void>;
  stop: AbortController;
  /** Reads until the output so far holds `text`. */
  until: (text: string) => Promise<void>;
  /** Reads on until a phase has come. */
  phase: (phase: 'preparing' | 'started') => Promise<void>;
  /** Reads the rest; the outcome holds what was read before, too. */
  rest: () => Promise<Outcome>;
}

export interface Bench {
  subject: ContractSubject;
  open: () => Promise<void>;
  close: () => Promise<void>;
  runner: () => Runner;
  /** Another instance's runner for the same servers. The caller closes it. */
  another: () => Promise<Runner>;
  start: (order: Order) => Underway;
  run: (order: Order) => Promise<Outcome>;
  /** What is left of all runs: marked processes on this machine, and what the subject finds. */
  left: () => Promise<string[]>;
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

export function createBench(subject: ContractSubject): Bench {
  const log = createLog('silent');
  const mark = randomUUID();
  const running: Runner[] = [];
  const another = async () => supervise(await subject.createRunner(), { log });
  const runner = () => {
    const [first] = running;
    if (first === undefined) throw new Error('the runner is made before the tests');
    return first;
  };
  const start = ({ limits, target = subject.target(), signal, ...order }: Order): Underway => {
    const job = jobOf(order, mark);
    const stop = new AbortController();
    const signals = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
    const all = { ...NO_LIMITS, ...subject.limits, ...limits };
    return follow(job.runId, runner().run(target, job, all, signals), stop);
  };
  return {
    subject,
    open: async () => {
      running.push(await another());
    },
    close: async () => {
      for (const each of running) await each.close();
    },
    ...{ runner, another, start },
    run: (order) => start(order).rest(),
    left: async () => [...markedProcesses(mark), ...(await subject.look())],
    test: (rule, body) => {
      it(rule, body, subject.testTimeoutMs ?? 120_000);
    },
  };
}

function jobOf({ env, ...order }: Partial<Job>, mark: string): Job {
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
function follow(runId: string, events: AsyncGenerator<RunEvent, void>, stop: AbortController): Underway {
  const bytes: Record<Stream, Buffer[]> = { stdout: [], stderr: [] };
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
    until: (part) => readUntil(() => text().includes(part), part),
    phase: (phase) => readUntil(() => phases.includes(phase), phase),
    rest: async () => {
      while ((await next()) !== undefined);
      if (exit === undefined) throw new Error('the run ended without an exit');
      expect(['preparing,started', 'preparing', '']).toContain(phases.join());
      return { stdout: Buffer.concat(bytes.stdout), stderr: Buffer.concat(bytes.stderr), phases, exit };
    },
  };
}

/** The processes of this machine, in whatever namespace, whose environment was marked; none elsewhere than on Linux. */
function markedProcesses(mark: string): string[] {
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
export const endsWith = (code: number) => ({
  type: 'exit',
  cause: 'exited',
  code,
  signal: null,
  cleanup: 'verified',
  message: null,
});
