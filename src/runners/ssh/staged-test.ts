import { randomBytes } from 'node:crypto';
import type { SshConfig } from '../../lib/ssh/config.ts';
import type { DedicatedSshConnection, SshConnections } from '../../lib/ssh/connections.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import { createEchoMessage, createInterpreterProbe, isInterpreterProbeComplete } from '../interpreters.ts';
import { TEST_STAGES, type Job, type TargetServer, type ServerTestResult } from '../runner.ts';
import { createSetup, createSetupReader, SETUP_FAILED, type Setup, type SetupReader } from '../setup.ts';
import {
  createTimeoutMessage,
  runStagedTest,
  StageError,
  toSshOutcome,
  type FailedTest,
  type PassStage,
} from '../test-stages.ts';
import { cleanUpSshRun } from './cleanup.ts';
import { InvalidJobError, toRefusalMessage } from './exit.ts';
import { toInterpreterSettings } from './interpreters.ts';
import { startSshJob } from './run.ts';
import { WatcherTimeoutError, type SshSession, type SshSessionResult } from './session.ts';

/** For the whole test. */
const TEST_TIMEOUT_MS = 45_000;
/** For the versions of all interpreters: the test does not fail for one that does not print its version. */
const VERSIONS_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 16 * 1024;

const WRONG_ECHO =
  "The output of a program did not arrive unchanged. Check the start files of the account's shell: they must not read " +
  'input or print.';
const WRITABLE = 'A file was written to the working folder.';
const NOT_WRITABLE =
  'The working folder cannot be written, so code and files of runs could not be put there. Make it writable for the ' +
  'account, check that the disk is not full, or name another folder.';
const NOT_KILLED =
  'It could not be verified that a process that had left its session was killed, and that nothing of the test is left. ' +
  "Check that grep, awk, ls, cat and rm on the account's PATH work, and its limit of processes (ulimit -u).";
const SUPERVISED =
  'A detached process was killed. A supervisor on the server is the parent of all processes of a run, so that none ' +
  'outlives it.';
const NOT_SUPERVISED =
  'A detached process was killed, but the server has neither Perl nor Python 3 to start the supervisor of all ' +
  'processes of a run (Linux 3.5 or later; Perl on x86-64 and ARM64). Only the environment, session, output and folder ' +
  'of processes are searched, so the cleanup of runs is "unverified". Install Perl or Python 3.';
const NOTHING_FOUND_LEFT = 'A search found no process of the test, and its files were removed.';
const NOT_VERIFIED = 'The cleanup of runs cannot be verified on this server.';
const GROUP_ONLY =
  'The process group of the program was killed. The server has no /proc, so processes that leave their group are not ' +
  'found, and the cleanup of runs is "unverified".';

/** Implements {@link import('../runner.ts').Runner.test}. */
export async function testSshServer(
  connections: SshConnections,
  target: TargetServer<SshConfig>,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  let connection: DedicatedSshConnection | undefined;
  try {
    const setup = createSetup(target.config.setup);
    return await runStagedTest(
      TEST_STAGES.filter((name) => name !== 'tls' && (name !== 'setup' || setup !== undefined)),
      async (pass, timedSignal) => {
        connection = await connections.connect(target, timedSignal, (stage) => pass(stage));
        await runProbe(connection, { ...target, setup }, timedSignal, pass);
      },
      { timeoutMs: TEST_TIMEOUT_MS, toOutcome },
      signal,
    );
  } finally {
    connection?.close();
  }
}

function toOutcome(error: unknown): FailedTest {
  if (error instanceof SshError) return { ...toSshOutcome(error), failedStage: error.stage };
  if (error instanceof StageError) return { status: 'error', message: error.message, hostKey: null };
  // Only the working folder of the test's job comes from the user.
  if (error instanceof InvalidJobError)
    return { status: 'error', message: error.message, hostKey: null, failedStage: 'workspace' };
  return { status: 'error', message: createTimeoutMessage(TEST_TIMEOUT_MS), hostKey: null };
}

/**
 * Runs a job with a file that prints a nonce and the versions of the interpreters, and starts a detached process, and
 * terminates it. It asks of the server what a run asks: one session, and the report of its cleanup.
 */
async function runProbe(
  connection: DedicatedSshConnection,
  target: TargetServer<SshConfig> & { setup: Setup | undefined },
  signal: AbortSignal,
  pass: PassStage,
) {
  const start = (command: string, execSignal: AbortSignal) => connection.exec(command, execSignal);
  const { config, setup } = target;
  const { job, expected } = createProbe(config);
  const reader = setup && createSetupReader(setup);
  const session = await startSshJob(start, target, job, signal);
  try {
    const output = await readProbe(session, { expected, reader }, signal, pass);
    assertStarted(session.result(), config, pass);
    if (reader?.state() === 'running') throw new StageError(SETUP_FAILED);
    if (!startsWith(output, expected)) throw new StageError(WRONG_ECHO);
    const versions = output.toString('utf8', expected.length);
    pass('echo', createEchoMessage(versions, toInterpreterSettings(config)));
    passReport(session.result(), pass);
  } catch (error) {
    const { isReady, refusal, report } = session.result();
    if (isReady && refusal === undefined && report !== 'proven') await cleanUpSshRun(start, job.runId);
    throw error;
  } finally {
    session.close();
  }
}

function passReport({ report, supervision }: SshSessionResult, pass: PassStage): void {
  const isGroupOnly = supervision === 'group' && report !== undefined;
  if (report !== 'proven' && report !== 'searched' && !isGroupOnly) throw new StageError(NOT_KILLED);
  if (report === 'proven') {
    pass('kill', SUPERVISED);
    pass('cleanup');
  } else {
    pass('kill', isGroupOnly ? GROUP_ONLY : NOT_SUPERVISED);
    pass('cleanup', isGroupOnly ? NOT_VERIFIED : NOTHING_FOUND_LEFT);
  }
}

function createProbe({ interpreters }: SshConfig): { job: Job; expected: Buffer } {
  const nonce = randomBytes(16).toString('hex');
  const versions = createInterpreterProbe(interpreters);
  // The child leaves its parent, and its session if the host has setsid. The echo ends in bytes that are not UTF-8.
  const echo = '({ setsid sleep 300 || sleep 300; } &); printf "%s\\000\\377" "$OPS_TEST_NONCE"';
  const job: Job = {
    runId: `test-${randomBytes(12).toString('hex')}`,
    program: { command: [echo, versions.command, 'sleep 300'].join('\n') },
    stdin: null,
    // Removed with the other files of the job.
    files: [{ path: `.ops-center-${nonce}`, content: Buffer.from(nonce) }],
    env: { ...versions.env, OPS_TEST_NONCE: nonce },
    workdir: null,
  };
  return { job, expected: Buffer.concat([Buffer.from(nonce), Buffer.from([0x00, 0xff])]) };
}

/** @returns the output, without that of the set-up. It begins with the expected one if it arrives unchanged. */
async function readProbe(
  session: SshSession,
  { expected, reader }: { expected: Buffer; reader: SetupReader | undefined },
  signal: AbortSignal,
  pass: PassStage,
): Promise<Buffer> {
  const terminate = () => session.terminate();
  signal.addEventListener('abort', terminate, { once: true });
  let timeout: NodeJS.Timeout | undefined;
  let received: Buffer = Buffer.alloc(0);
  let output = received;
  try {
    for (let event = await session.next(); event !== undefined; event = await session.next()) {
      if (event.type === 'started') {
        pass('permission');
        pass('workspace', WRITABLE);
      } else if (event.stream === 'stderr') {
        if (reader?.state() !== 'running') continue;
        reader.read('stderr', event.data);
        if (isOver(reader)) pass('setup');
      } else if (received.length < MAX_OUTPUT_BYTES) {
        received = Buffer.concat([received, event.data]);
        output = reader === undefined ? received : dropBefore(received, expected);
        if (output.length >= expected.length) timeout ??= setTimeout(terminate, VERSIONS_TIMEOUT_MS);
        if (received.length >= MAX_OUTPUT_BYTES || isProbeComplete(output, expected)) terminate();
      }
    }
  } catch (error) {
    // Without a report of the watcher a later stage fails.
    if (!(error instanceof WatcherTimeoutError)) throw error;
  } finally {
    clearTimeout(timeout);
    signal.removeEventListener('abort', terminate);
  }
  signal.throwIfAborted();
  return output;
}

/** A function, because TypeScript would otherwise narrow the state across the read. */
function isOver(reader: SetupReader): boolean {
  return reader.state() !== 'running';
}

/** Without the output before `expected`; empty without it. */
function dropBefore(output: Buffer, expected: Buffer): Buffer {
  const start = output.indexOf(expected);
  return start === -1 ? Buffer.alloc(0) : output.subarray(start);
}

/** Whether no more output is of interest. */
function isProbeComplete(output: Buffer, expected: Buffer): boolean {
  if (output.length < expected.length) return false;
  return (
    !startsWith(output, expected) || isInterpreterProbeComplete(output.toString('latin1', expected.length))
  );
}

function startsWith(output: Buffer, expected: Buffer): boolean {
  return output.subarray(0, expected.length).equals(expected);
}

function assertStarted(result: SshSessionResult, { interpreters }: SshConfig, pass: PassStage): void {
  const { isStarted, refusal } = result;
  if (isStarted) return;
  const isNotWritable = refusal?.reason === 'file';
  if (isNotWritable || refusal?.reason === 'workdir') pass('permission');
  throw new StageError(isNotWritable ? NOT_WRITABLE : toRefusalMessage(result, interpreters));
}
