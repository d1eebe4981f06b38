import { untilAborted } from '../../lib/deadline.ts';
import { tlsFault } from '../../lib/guarded-agent.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { Stage, StageName, TestResult } from '../runner.ts';
import { explain } from './explain.ts';
import { findFault } from './faults.ts';

/** Together with the cleaning less than a minute; an image that has to be fetched may use most of it. */
const TEST_MS = 45_000;

/** One stage of a test. @returns what was found, for people. */
export type Step = readonly [name: StageName, take: (signal: AbortSignal) => Promise<string>];

/** What a failure means for the server as a whole, by the stage in which it came. */
const STATUS_BY_STAGE: Partial<Record<StageName, TestResult['status']>> = {
  policy: 'forbidden',
  tcp: 'offline',
  authentication: 'auth_failed',
  permission: 'forbidden',
};

/** Takes the steps up to the first that fails. @throws the reason of `signal`, and nothing else. */
export async function takeSteps(steps: readonly Step[], signal: AbortSignal): Promise<TestResult> {
  const bound = AbortSignal.any([signal, AbortSignal.timeout(TEST_MS)]);
  const stages: Stage[] = [];
  for (const [index, [name, take]] of steps.entries()) {
    const startedMs = performance.now();
    const add = (status: Stage['status'], message: string) => {
      stages.push({ name, status, durationMs: Math.round(performance.now() - startedMs), message });
    };
    try {
      bound.throwIfAborted();
      add('ok', await untilAborted(take(bound), bound));
    } catch (error) {
      signal.throwIfAborted();
      const message = bound.aborted ? tooSlow(name) : explain(error);
      add('failed', message);
      return {
        ...failure(name, error),
        message,
        stages: [...stages, ...steps.slice(index + 1).map(skipped)],
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

function failure(name: StageName, error: unknown): Pick<TestResult, 'status' | 'hostKey'> {
  const fault = findFault(error);
  if (fault instanceof SshError) {
    const { failure: status, hostKey, hop } = fault;
    return { status, hostKey: hostKey === null ? null : { ...hostKey, hop } };
  }
  const isRefused = tlsFault(error) === 'client_refused';
  return { status: isRefused ? 'auth_failed' : (STATUS_BY_STAGE[name] ?? 'error'), hostKey: null };
}

function skipped([name]: Step): Stage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}

function tooSlow(name: StageName): string {
  return name === 'workspace'
    ? 'The container did not start in time. If the engine is still fetching the image, test again in a minute.'
    : 'The engine took too long.';
}
