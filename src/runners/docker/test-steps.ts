import { rejectOnAbort } from '../../lib/net/deadline.ts';
import { findTlsErrorReason } from '../../lib/net/guarded-agent.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { TestStage, TestStageName, ServerTestResult } from '../runner.ts';
import { explainDockerError, findDockerError } from './errors.ts';

/** With the cleanup less than a minute. Pulling an image may take most of it. */
const TEST_TIMEOUT_MS = 45_000;

/** One stage of a test. @returns the finding, for users. */
export type DockerTestStep = readonly [name: TestStageName, run: (signal: AbortSignal) => Promise<string>];

/** Test status by the stage that failed. */
const STATUS_BY_STAGE: Partial<Record<TestStageName, ServerTestResult['status']>> = {
  policy: 'forbidden',
  tcp: 'offline',
  authentication: 'auth_failed',
  permission: 'forbidden',
};

/** Runs the steps up to the first failure. @throws only the reason of `signal`. */
export async function runDockerTestSteps(
  steps: readonly DockerTestStep[],
  signal: AbortSignal,
): Promise<ServerTestResult> {
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(TEST_TIMEOUT_MS)]);
  const stages: TestStage[] = [];
  for (const [index, [name, run]] of steps.entries()) {
    const startedMs = performance.now();
    const add = (status: TestStage['status'], message: string) => {
      stages.push({ name, status, durationMs: Math.round(performance.now() - startedMs), message });
    };
    try {
      timedSignal.throwIfAborted();
      add('ok', await rejectOnAbort(run(timedSignal), timedSignal));
    } catch (error) {
      signal.throwIfAborted();
      const message = timedSignal.aborted ? timeoutMessage(name) : explainDockerError(error);
      add('failed', message);
      return {
        ...toFailure(name, error),
        message,
        stages: [...stages, ...steps.slice(index + 1).map(toSkippedStage)],
      };
    }
  }
  return {
    status: 'online',
    message: 'Programs run there, and end when they are stopped.',
    stages,
    hostKey: null,
  };
}

function toFailure(name: TestStageName, error: unknown): Pick<ServerTestResult, 'status' | 'hostKey'> {
  const dockerError = findDockerError(error);
  if (dockerError instanceof SshError) {
    const { failure: status, hostKey, hop } = dockerError;
    return { status, hostKey: hostKey === null ? null : { ...hostKey, hop } };
  }
  const isRefused = findTlsErrorReason(error) === 'client_refused';
  return { status: isRefused ? 'auth_failed' : (STATUS_BY_STAGE[name] ?? 'error'), hostKey: null };
}

function toSkippedStage([name]: DockerTestStep): TestStage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}

function timeoutMessage(name: TestStageName): string {
  return name === 'workspace'
    ? 'The container did not start in time. If the engine is still pulling the image, test again in a minute.'
    : 'The engine took too long.';
}
