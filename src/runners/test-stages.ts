import type { Duplex } from 'node:stream';
import { rejectOnAbort } from '../lib/async/reject-on-abort.ts';
import { AppError, isAppError } from '../lib/errors.ts';
import type { Dialer } from '../lib/net/dialer.ts';
import { createTlsHandshake, type TlsPeer } from '../lib/net/tls-connector.ts';
import { SshError } from '../lib/ssh/ssh-error.ts';
import type { TestStage, TestStageName, ServerTestResult } from './runner.ts';

/** One stage of a test. @returns the finding, for users; undefined for that of {@link PASSED_MESSAGES}. */
export type TestStep = readonly [
  name: TestStageName,
  run: (signal: AbortSignal) => Promise<string | undefined> | string | undefined,
];

/** Result of a test without its stages. */
export type TestOutcome = Omit<ServerTestResult, 'stages'>;

/** Without a failed stage it is the first one that has not passed. */
export type FailedTest = TestOutcome & { failedStage?: TestStageName };

export interface StagedTestOptions {
  /** For all stages together. The runner's cleanup comes on top. */
  timeoutMs: number;
  /**
   * Converts a failure.
   * @param stage the first stage that has not passed.
   * @param isLate the timeout has passed, so the error has no meaning.
   */
  toOutcome: (error: unknown, stage: TestStageName, isLate: boolean) => FailedTest;
}

/** Marks a stage as passed. It may pass several times, e.g. once for each jump server. Its durations are added. */
export type PassStage = (name: TestStageName, message?: string) => void;

/** Findings of stages that have no other. They are the same for all types of servers. */
const PASSED_MESSAGES: Record<TestStageName, string> = {
  policy: 'The address is allowed.',
  tcp: 'The server accepts connections.',
  host_key: 'The server has the confirmed host key.',
  tls: 'The certificate of the server is valid.',
  authentication: 'The server accepts the sign-in.',
  permission: 'The account may run commands.',
  workspace: 'The working folder can be entered.',
  setup: 'The set-up ended with exit code 0.',
  echo: 'The output of a program arrives unchanged.',
  kill: 'A detached process was killed.',
  cleanup: 'Nothing of the test is left.',
};
const ONLINE_MESSAGE = 'Programs run on this server, and are killed when they are stopped.';
const NOT_TRIED_MESSAGE = 'Not tried, since an earlier stage failed.';

/** A stage failed. The message is for users. */
export class StageError extends Error {
  override readonly name = 'StageError';
}

/**
 * The stages that connect to a server over TLS. All use one connection.
 * @param onSecured receives the connection, which `close` destroys too.
 */
export function createTlsStages(
  dialer: Dialer,
  peer: TlsPeer,
  onSecured: (connection: Duplex) => void,
): { steps: readonly TestStep[]; close: () => void } {
  let dialing: ReturnType<Dialer['connect']> | undefined;
  const dial = (signal: AbortSignal) => (dialing ??= dialer.connect(peer.host, peer.port, signal));
  return {
    steps: [
      [
        'policy',
        async (signal) => {
          await dial(signal).catch((error: unknown) => {
            if (isAppError(error, 'endpoint_forbidden')) throw error;
          });
          return undefined;
        },
      ],
      ['tcp', (signal) => dial(signal).then(() => undefined)],
      [
        'tls',
        async (signal) => {
          onSecured(await createTlsHandshake(peer)(await dial(signal), signal));
          return undefined;
        },
      ],
    ],
    close: () => void dialing?.then((socket) => socket.destroy()).catch(() => undefined),
  };
}

/** Runs a test whose stages are separate steps, up to the first failure. @throws only the reason of `signal`. */
export function runTestSteps(
  steps: readonly TestStep[],
  options: StagedTestOptions,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  const runSteps = async (pass: PassStage, timedSignal: AbortSignal) => {
    for (const [name, run] of steps) {
      timedSignal.throwIfAborted();
      pass(name, await rejectOnAbort(Promise.resolve(run(timedSignal)), timedSignal));
    }
  };
  return runStagedTest(
    steps.map(([name]) => name),
    runSteps,
    options,
    signal,
  );
}

/**
 * Runs a test that reports each passed stage, up to the first error.
 * @throws the reason of `signal`, or AppError `busy` (503) when this process has no capacity: that says nothing about
 *   the server.
 * @param order all stages of the test, in the order in which they run.
 */
export async function runStagedTest(
  order: readonly TestStageName[],
  run: (pass: PassStage, signal: AbortSignal) => Promise<void>,
  { timeoutMs, toOutcome }: StagedTestOptions,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const stages = new Map<TestStageName, TestStage>();
  let startedMs = performance.now();

  /** Each stage lasts from the end of the previous one. */
  function add(name: TestStageName, status: TestStage['status'], message: string): void {
    const nowMs = performance.now();
    const durationMs = (stages.get(name)?.durationMs ?? 0) + Math.round(nowMs - startedMs);
    stages.set(name, { name, status, durationMs, message });
    startedMs = nowMs;
  }
  const listStages = (last: number) =>
    order.map((name, index) => (index <= last ? stages.get(name) : undefined) ?? skipped(name));

  try {
    await run((name, message = PASSED_MESSAGES[name]) => add(name, 'ok', message), timedSignal);
    return { status: 'online', message: ONLINE_MESSAGE, stages: listStages(order.length), hostKey: null };
  } catch (error) {
    signal.throwIfAborted();
    assertNotBusy(error);
    const stage = order.find((name) => !stages.has(name)) ?? 'cleanup';
    const { failedStage = stage, ...outcome } = toOutcome(error, stage, timedSignal.aborted);
    add(failedStage, 'failed', outcome.message);
    // Later stages count as not tried, even if a jump server passed them.
    return { ...outcome, stages: listStages(order.indexOf(failedStage)) };
  }
}

function skipped(name: TestStageName): TestStage {
  return { name, status: 'skipped', durationMs: 0, message: NOT_TRIED_MESSAGE };
}

/** The error of a connector is a cause of the failed request's error. */
function assertNotBusy(error: unknown): void {
  for (let cause = error; cause instanceof Error; cause = cause.cause)
    if (cause instanceof SshError && cause.failure === 'busy')
      throw new AppError('busy', cause.message, { headers: { 'retry-after': '5' } });
}

/** The outcome of a test whose SSH connection failed. The message is that of the error. */
export function toSshOutcome({ failure, message, hostKey, hop }: SshError): TestOutcome {
  const status = failure === 'busy' ? 'error' : failure;
  return { status, message, hostKey: hostKey === null ? null : { ...hostKey, hop } };
}

/** Message for a test that took longer than its timeout. */
export function createTimeoutMessage(timeoutMs: number): string {
  return `The test did not finish within ${timeoutMs / 1000} s.`;
}
