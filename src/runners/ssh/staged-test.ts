import { randomBytes } from 'node:crypto';
import type { SoleConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { Job, StageName, Target, TestResult } from '../runner.ts';
import { createStageRecord } from '../stages.ts';
import { reapRun } from './reap.ts';
import { explainRefusal, openJob } from './run.ts';
import { JobError } from './job-input.ts';
import { SilenceError, type Session, type SessionEnd } from './session.ts';

/** Of the whole test. */
const TEST_MS = 45_000;

/** The stages of SSH, and what is said where one is passed. */
const PASSED: ReadonlyMap<StageName, string> = new Map([
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
const ORDER = [...PASSED.keys()];

const WRONG_ECHO =
  "A program's output did not come back unchanged. Look for start files of the account's shell that read or write.";
const NOT_KILLED =
  'A process that had left its session could not be ended, or the server could not be asked: see that /proc is ' +
  "mounted, and that grep, awk, ls and cat are on the account's PATH.";
const LEFT_BEHIND = 'Something of the test may be left on the server: it could not be looked for.';
const TOO_LONG = `The server did not get through the test within ${TEST_MS / 1000} s.`;

/** A stage that was not passed. */
class StageError extends Error {
  override readonly name = 'StageError';
  readonly stage: StageName;

  constructor(stage: StageName, message: string) {
    super(message);
    this.stage = stage;
  }
}

/** Tries a server stage by stage, as {@link import('../runner.ts').Runner.test} says. */
export async function testServer(
  connections: SshConnections,
  target: Target,
  signal: AbortSignal,
): Promise<TestResult> {
  signal.throwIfAborted();
  const phase = AbortSignal.any([signal, AbortSignal.timeout(TEST_MS)]);
  const record = createRecord();
  let connection: SoleConnection | undefined;
  try {
    connection = await connections.connect(target, phase, (stage) => record.pass(stage));
    await probe(connection, target, phase, record);
    return record.succeed();
  } catch (error) {
    signal.throwIfAborted();
    return record.fail(error);
  } finally {
    connection?.close();
  }
}

type Record = ReturnType<typeof createRecord>;

/** The stages of SSH, with what is said where one is passed or failed. */
function createRecord() {
  const stages = createStageRecord(ORDER);
  return {
    pass: (name: StageName) => stages.pass(name, PASSED.get(name) ?? ''),
    succeed: () => stages.succeed('Programs run there, and end when they are stopped.'),
    fail(error: unknown): TestResult {
      if (error instanceof SshError) {
        const { stage, failure: status, message, hostKey, hop } = error;
        return stages.fail(stage, {
          status,
          message,
          hostKey: hostKey === null ? null : { ...hostKey, hop },
        });
      }
      const [stage, message] =
        error instanceof StageError ? [error.stage, error.message] : [stages.next(), TOO_LONG];
      return stages.fail(stage, { status: 'error', message, hostKey: null });
    },
  };
}

/** Runs one job that prints a nonce and leaves a process behind, ends it, and looks. */
async function probe(connection: SoleConnection, target: Target, signal: AbortSignal, record: Record) {
  const start = (command: string, phase: AbortSignal) => connection.exec(command, phase);
  const { job, expected } = createProbe();
  const session = await openJob(start, target, job, signal).catch((error: unknown) => {
    // The job is ours: only the folder can be at fault.
    throw error instanceof JobError ? new StageError('workspace', error.message) : error;
  });
  try {
    await readProbe(session, expected, signal, record);
    if (session.end().isClean !== true) throw new StageError('kill', NOT_KILLED);
    record.pass('kill');
  } finally {
    session.discard();
  }
  if ((await reapRun(start, job.runId)) === 'unverified') throw new StageError('cleanup', LEFT_BEHIND);
  record.pass('cleanup');
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

async function readProbe(session: Session, expected: Buffer, signal: AbortSignal, record: Record) {
  const stop = () => session.finish();
  signal.addEventListener('abort', stop, { once: true });
  let output: Buffer = Buffer.alloc(0);
  try {
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      if (event.type === 'started') {
        record.pass('permission');
        record.pass('workspace');
      } else if (event.stream === 'stdout' && output.length < expected.length) {
        output = Buffer.concat([output, event.data]);
        if (output.length >= expected.length) session.finish();
      }
    }
  } catch (error) {
    // What was not heard was not passed: the stages below find out.
    if (!(error instanceof SilenceError)) throw error;
  } finally {
    signal.removeEventListener('abort', stop);
  }
  signal.throwIfAborted();
  refuse(session.end(), record);
  if (!output.equals(expected)) throw new StageError('echo', WRONG_ECHO);
  record.pass('echo');
}

function refuse({ isStarted, refusal }: SessionEnd, record: Record): void {
  if (isStarted) return;
  const message = explainRefusal(refusal?.reason);
  if (refusal?.reason !== 'workdir') throw new StageError('permission', message);
  record.pass('permission');
  throw new StageError('workspace', message);
}
