import { randomUUID } from 'node:crypto';
import { randomId } from '../../lib/ids.ts';
import type {
  ExitEvent,
  Job,
  Limits,
  RunEvent,
  TestStage,
  TestStageName,
  ServerTestResult,
} from '../runner.ts';

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
  run: (job: Job, limits: Limits, signal: AbortSignal) => AsyncGenerator<RunEvent, void>;
}

/** Each step resolves to the message of the passed stage, or throws {@link StageError}. */
type Steps = readonly (readonly [TestStageName, () => Promise<string> | string])[];

/** A stage failed. The message is for users. */
class StageError extends Error {
  override readonly name = 'StageError';
}

/** Implements {@link import('../runner.ts').Runner.test}. */
export async function testLocalServer(deps: LocalTestDeps, signal: AbortSignal): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const stages: TestStage[] = [];
  let failure: TestStage | undefined;
  for (const [name, step] of createSteps(
    deps,
    AbortSignal.any([signal, AbortSignal.timeout(TEST_TIMEOUT_MS)]),
  )) {
    const stage: TestStage = failure === undefined ? await runStage(name, step) : skipped(name);
    if (stage.status === 'failed') failure = stage;
    stages.push(stage);
    signal.throwIfAborted();
  }
  if (failure === undefined) return { status: 'online', message: ONLINE, stages, hostKey: null };
  const status = failure.name === 'policy' || failure.name === 'permission' ? 'forbidden' : 'error';
  return { status, message: failure.message, stages, hostKey: null };
}

const ONLINE =
  'Programs run on this machine in a sandbox, and are killed with all processes that they start.';

function createSteps(
  { enabled, findUnavailableReason, hasFolder, run }: LocalTestDeps,
  signal: AbortSignal,
): Steps {
  const exits: ExitEvent[] = [];
  const runCommand = async (command: string, env: Job['env'], stopAt?: string) => {
    const stop = new AbortController();
    const events = run(createJob(command, env), LIMITS, AbortSignal.any([signal, stop.signal]));
    const { text, exit } = await readAll(events, (read) => {
      if (stopAt !== undefined && read.includes(stopAt)) stop.abort('cancelled');
    });
    exits.push(exit);
    return { text, exit };
  };
  return [
    [
      'policy',
      () =>
        assertStage(
          enabled,
          LOCAL_EXECUTION_DISABLED,
          'The operator allows programs to run on this machine.',
        ),
    ],
    [
      'permission',
      async () => {
        const reason = await findUnavailableReason();
        return assertStage(reason === undefined, reason ?? '', 'A probe could not escape from its sandbox.');
      },
    ],
    ['workspace', () => assertStage(hasFolder, NO_FOLDER, 'The working folder exists.')],
    [
      'echo',
      async () => {
        const nonce = randomId();
        const { text } = await runCommand('printf %s "$NONCE"', { NONCE: nonce });
        return assertStage(text === nonce, NO_ECHO, 'The output of a program arrives unchanged.');
      },
    ],
    [
      'kill',
      async () => {
        const { text, exit } = await runCommand(UNSTOPPABLE_COMMAND, {}, 'ready');
        return assertStage(
          text.includes('ready') && exit.cause === 'cancelled',
          NOT_KILLED,
          'A process that had left its session was killed.',
        );
      },
    ],
    [
      'cleanup',
      () =>
        assertStage(
          exits.every(({ cleanup }) => cleanup === 'verified'),
          CLEANUP_UNVERIFIED,
          'No processes or files of the test remain.',
        ),
    ],
  ];
}

export const LOCAL_EXECUTION_DISABLED =
  'Local execution is turned off. The operator can turn it on with LOCAL_EXECUTION=true.';
const NO_FOLDER = 'The working folder does not exist. Use /work or /tmp, or leave it empty.';
const NO_ECHO = 'A program could not be run, or its output did not arrive. See the log of the app.';
const NOT_KILLED =
  'It could not be verified that a stopped program ended. Programs could keep running unnoticed.';
const CLEANUP_UNVERIFIED =
  'Processes or files of the test may remain on this machine. See the log of the app.';

function assertStage(holds: boolean, failureMessage: string, okMessage: string): string {
  if (!holds) throw new StageError(failureMessage);
  return okMessage;
}

async function runStage(name: TestStageName, step: Steps[number][1]): Promise<TestStage> {
  const startedMs = performance.now();
  const end = (status: TestStage['status'], message: string): TestStage => {
    return { name, status, durationMs: Math.round(performance.now() - startedMs), message };
  };
  try {
    return end('ok', await step());
  } catch (error) {
    return end('failed', error instanceof StageError ? error.message : NO_ECHO);
  }
}

function skipped(name: TestStageName): TestStage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}

function createJob(command: string, env: Job['env']): Job {
  return { runId: `test-${randomUUID()}`, program: { command }, stdin: null, files: [], env, workdir: null };
}

async function readAll(events: AsyncGenerator<RunEvent, void>, onText: (read: string) => void) {
  let text = '';
  for await (const event of events) {
    if (event.type === 'exit') return { text, exit: event };
    if (event.type === 'output') onText((text += Buffer.from(event.data).toString()));
  }
  throw new Error('a run ended without an exit');
}
