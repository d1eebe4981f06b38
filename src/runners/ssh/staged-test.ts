import { randomBytes } from 'node:crypto';
import type { DedicatedSshConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { Job, TestStageName, TargetServer, ServerTestResult } from '../runner.ts';
import { createStageTracker } from '../test-stages.ts';
import { cleanUpSshRun } from './cleanup.ts';
import { toRefusalMessage, startSshJob } from './run.ts';
import { InvalidJobError } from './job-input.ts';
import { WatcherTimeoutError, type SshSession, type SshSessionResult } from './session.ts';

/** Of the whole test. */
const TEST_TIMEOUT_MS = 45_000;

/** The stages of SSH, and what is said where one is passed. */
const PASSED_MESSAGES: ReadonlyMap<TestStageName, string> = new Map([
  ['policy', 'The address may be reached from here.'],
  ['tcp', 'The server accepts connections.'],
  ['host_key', 'The server has the confirmed host key.'],
  ['authentication', 'The server accepts the sign-in.'],
  ['permission', 'The account may run commands.'],
  ['workspace', 'The working folder can be entered.'],
  ['echo', 'What a program prints comes back unchanged.'],
  ['kill', 'A process that had left its session was ended.'],
  ['cleanup', 'Nothing of the test is left on the server.'],
]);
const ORDER = [...PASSED_MESSAGES.keys()];

const WRONG_ECHO =
  "A program's output did not come back unchanged. Look for start files of the account's shell that read or write.";
const NOT_KILLED =
  'A process that had left its session could not be ended, or the server could not be asked: see that /proc is ' +
  "mounted, and that grep, awk, ls and cat are on the account's PATH.";
const CLEANUP_UNVERIFIED = 'Something of the test may be left on the server: it could not be looked for.';
const TIMED_OUT = `The server did not get through the test within ${TEST_TIMEOUT_MS / 1000} s.`;

/** A stage that was not passed. */
class StageError extends Error {
  override readonly name = 'StageError';
  readonly stage: TestStageName;

  constructor(stage: TestStageName, message: string) {
    super(message);
    this.stage = stage;
  }
}

/** Tries a server stage by stage, as {@link import('../runner.ts').Runner.test} says. */
export async function testSshServer(
  connections: SshConnections,
  target: TargetServer,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const phase = AbortSignal.any([signal, AbortSignal.timeout(TEST_TIMEOUT_MS)]);
  const stages = createSshStageTracker();
  let connection: DedicatedSshConnection | undefined;
  try {
    connection = await connections.connect(target, phase, (stage) => stages.pass(stage));
    await runProbe(connection, target, phase, stages);
    return stages.succeed();
  } catch (error) {
    signal.throwIfAborted();
    return stages.fail(error);
  } finally {
    connection?.close();
  }
}

type SshStageTracker = ReturnType<typeof createSshStageTracker>;

/** The stages of SSH, with what is said where one is passed or failed. */
function createSshStageTracker() {
  const stages = createStageTracker(ORDER);
  return {
    pass: (name: TestStageName) => stages.markPassed(name, PASSED_MESSAGES.get(name) ?? ''),
    succeed: () => stages.toSuccess('Programs run there, and end when they are stopped.'),
    fail(error: unknown): ServerTestResult {
      if (error instanceof SshError) {
        const { stage, failure: status, message, hostKey, hop } = error;
        return stages.toFailure(stage, {
          status,
          message,
          hostKey: hostKey === null ? null : { ...hostKey, hop },
        });
      }
      const [stage, message] =
        error instanceof StageError ? [error.stage, error.message] : [stages.firstNotPassed(), TIMED_OUT];
      return stages.toFailure(stage, { status: 'error', message, hostKey: null });
    },
  };
}

/** Runs one job that prints a nonce and leaves a process behind, ends it, and looks. */
async function runProbe(
  connection: DedicatedSshConnection,
  target: TargetServer,
  signal: AbortSignal,
  stages: SshStageTracker,
) {
  const start = (command: string, phase: AbortSignal) => connection.exec(command, phase);
  const { job, expected } = createProbe();
  const session = await startSshJob(start, target, job, signal).catch((error: unknown) => {
    // The job is ours: only the folder can be at fault.
    throw error instanceof InvalidJobError ? new StageError('workspace', error.message) : error;
  });
  try {
    await readProbe(session, expected, signal, stages);
    if (session.result().isClean !== true) throw new StageError('kill', NOT_KILLED);
    stages.pass('kill');
  } finally {
    session.close();
  }
  if ((await cleanUpSshRun(start, job.runId)) === 'unverified')
    throw new StageError('cleanup', CLEANUP_UNVERIFIED);
  stages.pass('cleanup');
}

function createProbe(): { job: Job; expected: Buffer } {
  const nonce = randomBytes(16).toString('hex');
  const job: Job = {
    runId: `test-${randomBytes(12).toString('hex')}`,
    // The child leaves its session and its parent. What is printed ends in bytes that are not UTF-8.
    program: { command: '(setsid sleep 300 &); printf "%s\\000\\377" "$OPS_TEST_NONCE"; sleep 300' },
    stdin: null,
    files: [],
    env: { OPS_TEST_NONCE: nonce },
    workdir: null,
  };
  return { job, expected: Buffer.concat([Buffer.from(nonce), Buffer.from([0x00, 0xff])]) };
}

async function readProbe(
  session: SshSession,
  expected: Buffer,
  signal: AbortSignal,
  stages: SshStageTracker,
) {
  const terminate = () => session.terminate();
  signal.addEventListener('abort', terminate, { once: true });
  let output: Buffer = Buffer.alloc(0);
  try {
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      if (event.type === 'started') {
        stages.pass('permission');
        stages.pass('workspace');
      } else if (event.stream === 'stdout' && output.length < expected.length) {
        output = Buffer.concat([output, event.data]);
        if (output.length >= expected.length) session.terminate();
      }
    }
  } catch (error) {
    // What was not heard was not passed: the stages below find out.
    if (!(error instanceof WatcherTimeoutError)) throw error;
  } finally {
    signal.removeEventListener('abort', terminate);
  }
  signal.throwIfAborted();
  assertStarted(session.result(), stages);
  if (!output.equals(expected)) throw new StageError('echo', WRONG_ECHO);
  stages.pass('echo');
}

function assertStarted({ isStarted, refusal }: SshSessionResult, stages: SshStageTracker): void {
  if (isStarted) return;
  const message = toRefusalMessage(refusal?.reason);
  if (refusal?.reason !== 'workdir') throw new StageError('permission', message);
  stages.pass('permission');
  throw new StageError('workspace', message);
}
