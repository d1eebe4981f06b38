import { randomBytes } from 'node:crypto';
import type { DedicatedSshConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { Job, TestStageName, TargetServer, ServerTestResult } from '../runner.ts';
import { createStageTracker } from '../test-stages.ts';
import { cleanUpSshRun } from './cleanup.ts';
import { toRefusalMessage } from './exit.ts';
import { InvalidJobError } from './job-input.ts';
import { startSshJob } from './run.ts';
import { WatcherTimeoutError, type SshSession, type SshSessionResult } from './session.ts';

/** For the whole test. */
const TEST_TIMEOUT_MS = 45_000;

/** The stages of SSH with the message of each passed stage. */
const PASSED_MESSAGES: ReadonlyMap<TestStageName, string> = new Map([
  ['policy', 'The address is allowed.'],
  ['tcp', 'The server accepts connections.'],
  ['host_key', 'The server has the confirmed host key.'],
  ['authentication', 'The server accepts the sign-in.'],
  ['permission', 'The account may run commands.'],
  ['workspace', 'The working folder can be entered.'],
  ['echo', 'The output of a program arrives unchanged.'],
  ['kill', 'A process that had left its session was killed.'],
  ['cleanup', 'No processes or files of the test remain on the server.'],
]);
const ORDER = [...PASSED_MESSAGES.keys()];

const WRONG_ECHO =
  "The output of a program did not arrive unchanged. Check the start files of the account's shell: they must not read " +
  'input or print.';
const NOT_KILLED =
  'It could not be verified that a process that had left its session was killed. Check that /proc is mounted, and ' +
  "that grep, awk, ls and cat are on the account's PATH.";
const CLEANUP_UNVERIFIED =
  'Processes or files of the test may remain on the server: the cleanup could not be verified.';
const TIMED_OUT = `The test did not finish within ${TEST_TIMEOUT_MS / 1000} s.`;

/** A stage failed. The message is for users. */
class StageError extends Error {
  override readonly name = 'StageError';
  readonly stage: TestStageName;

  constructor(stage: TestStageName, message: string) {
    super(message);
    this.stage = stage;
  }
}

/** Implements {@link import('../runner.ts').Runner.test}. */
export async function testSshServer(
  connections: SshConnections,
  target: TargetServer,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(TEST_TIMEOUT_MS)]);
  const stages = createSshStageTracker();
  let connection: DedicatedSshConnection | undefined;
  try {
    connection = await connections.connect(target, timedSignal, (stage) => stages.pass(stage));
    await runProbe(connection, target, timedSignal, stages);
    return stages.succeed();
  } catch (error) {
    signal.throwIfAborted();
    return stages.fail(error);
  } finally {
    connection?.close();
  }
}

type SshStageTracker = ReturnType<typeof createSshStageTracker>;

/** Tracks the stages of SSH and adds their messages. */
function createSshStageTracker() {
  const stages = createStageTracker(ORDER);
  return {
    pass: (name: TestStageName) => stages.markPassed(name, PASSED_MESSAGES.get(name) ?? ''),
    succeed: () => stages.toSuccess('Programs run on this server, and are killed when they are stopped.'),
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

/** Runs a job that prints a nonce and starts a detached process, terminates it, and verifies the cleanup. */
async function runProbe(
  connection: DedicatedSshConnection,
  target: TargetServer,
  signal: AbortSignal,
  stages: SshStageTracker,
) {
  const start = (command: string, execSignal: AbortSignal) => connection.exec(command, execSignal);
  const { job, expected } = createProbe();
  const session = await startSshJob(start, target, job, signal).catch((error: unknown) => {
    // Only the working folder of this job comes from the user.
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
    // The child leaves its session and its parent. The output ends in bytes that are not UTF-8.
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
    // Without a report of the watcher a later stage fails.
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
