import { randomUUID } from 'node:crypto';
import { randomId } from '../../lib/ids.ts';
import type { ExitEvent, Job, Limits, RunEvent, TestStageName, ServerTestResult } from '../runner.ts';
import {
  createTimeoutMessage,
  runTestSteps,
  StageError,
  type FailedTest,
  type TestStep,
} from '../test-stages.ts';

const TEST_TIMEOUT_MS = 50_000;
const LIMITS: Limits = {
  timeoutMs: TEST_TIMEOUT_MS,
  maxOutputBytes: 10_000,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: 'none',
};
/** Leaves its session and ignores HUP and TERM, like a program that tries to outlive its run. */
const UNSTOPPABLE_COMMAND = `setsid sh -c 'trap "" HUP TERM; echo ready; while :; do sleep 1; done' & wait`;

export interface LocalTestDeps {
  enabled: boolean;
  /** Why no program may run here, for users; undefined when programs may run. */
  findUnavailableReason: () => Promise<string | undefined>;
  hasFolder: boolean;
  hasSetup: boolean;
  run: (job: Job, limits: Limits, signal: AbortSignal) => AsyncGenerator<RunEvent, void>;
}

/** Implements {@link import('../runner.ts').Runner.test}. */
export async function testLocalServer(deps: LocalTestDeps, signal: AbortSignal): Promise<ServerTestResult> {
  const runs: Promise<unknown>[] = [];
  const runCommand: RunCommand = (...args) => {
    const run = readTestRun(deps.run, ...args);
    runs.push(run);
    return run;
  };
  try {
    return await runTestSteps(
      [...createSandboxSteps(deps), ...createProgramSteps(runCommand, deps.hasSetup)],
      { timeoutMs: TEST_TIMEOUT_MS, toOutcome },
      signal,
    );
  } finally {
    // After the timeout or an abort, the killed program is still being cleaned up.
    await Promise.allSettled(runs);
  }
}

function createSandboxSteps({ enabled, findUnavailableReason, hasFolder }: LocalTestDeps): TestStep[] {
  return [
    [
      'policy',
      () => {
        if (!enabled) throw new StageError(LOCAL_EXECUTION_DISABLED);
        return 'The operator allows programs to run on this machine.';
      },
    ],
    [
      'permission',
      async () => {
        const reason = await findUnavailableReason();
        if (reason !== undefined) throw new StageError(reason);
        return 'A probe could not escape from its sandbox.';
      },
    ],
    [
      'workspace',
      () => {
        if (!hasFolder) throw new StageError(NO_FOLDER);
        return undefined;
      },
    ],
  ];
}

function createProgramSteps(runCommand: RunCommand, hasSetup: boolean): TestStep[] {
  const exits: ExitEvent[] = [];
  const setupStep: TestStep = [
    'setup',
    async (signal) => {
      const { exit } = await runCommand('true', {}, signal);
      exits.push(exit);
      if (exit.cause !== 'exited' || exit.code !== 0 || exit.message !== null)
        throw new StageError(exit.message ?? NO_ECHO);
      return undefined;
    },
  ];
  return [
    ...(hasSetup ? [setupStep] : []),
    [
      'echo',
      async (signal) => {
        const nonce = randomId();
        const { text, exit } = await runCommand('printf %s "$NONCE"', { NONCE: nonce }, signal);
        exits.push(exit);
        // The output of the set-up may precede it.
        if (hasSetup ? !text.endsWith(nonce) : text !== nonce) throw new StageError(NO_ECHO);
        return undefined;
      },
    ],
    [
      'kill',
      async (signal) => {
        const { text, exit } = await runCommand(UNSTOPPABLE_COMMAND, {}, signal, 'ready');
        exits.push(exit);
        if (!text.includes('ready') || exit.cause !== 'cancelled') throw new StageError(NOT_KILLED);
        return undefined;
      },
    ],
    [
      'cleanup',
      () => {
        if (exits.some(({ cleanup }) => cleanup !== 'verified')) throw new StageError(CLEANUP_UNVERIFIED);
        return undefined;
      },
    ],
  ];
}

function toOutcome(error: unknown, stage: TestStageName, isLate: boolean): FailedTest {
  if (isLate) return { status: 'error', message: createTimeoutMessage(TEST_TIMEOUT_MS), hostKey: null };
  const status = stage === 'policy' || stage === 'permission' ? 'forbidden' : 'error';
  return { status, message: error instanceof StageError ? error.message : NO_ECHO, hostKey: null };
}

export const LOCAL_EXECUTION_DISABLED =
  'Local execution is turned off. The operator can turn it on with LOCAL_EXECUTION=true.';
const NO_FOLDER = 'The working folder does not exist. Use /work or /tmp, or leave it empty.';
const NO_ECHO = 'A program could not be run, or its output did not arrive. See the log of the app.';
const NOT_KILLED =
  'It could not be verified that a stopped program ended. Programs could keep running unnoticed.';
const CLEANUP_UNVERIFIED =
  'Processes or files of the test may remain on this machine. See the log of the app.';

/** Runs a command and returns its standard output. @param stopAt output at which the command is cancelled. */
type RunCommand = (
  command: string,
  env: Job['env'],
  signal: AbortSignal,
  stopAt?: string,
) => Promise<{ text: string; exit: ExitEvent }>;

async function readTestRun(
  run: LocalTestDeps['run'],
  ...[command, env, signal, stopAt]: Parameters<RunCommand>
): ReturnType<RunCommand> {
  const stop = new AbortController();
  const job = {
    runId: `test-${randomUUID()}`,
    program: { command },
    stdin: null,
    files: [],
    env,
    workdir: null,
  };
  let text = '';
  for await (const event of run(job, LIMITS, AbortSignal.any([signal, stop.signal]))) {
    if (event.type === 'exit') return { text, exit: event };
    if (event.type === 'output') text += Buffer.from(event.data).toString();
    if (stopAt !== undefined && text.includes(stopAt)) stop.abort('cancelled');
  }
  throw new Error('a run ended without an exit');
}
