import { rejectOnAbort } from '../lib/async/reject-on-abort.ts';
import type { TestStage, TestStageName, ServerTestResult } from './runner.ts';

/** One stage of a test. @returns the finding, for users. */
export type TestStep = readonly [name: TestStageName, run: (signal: AbortSignal) => Promise<string>];

/** Result of a test without its stages. */
export type TestOutcome = Omit<ServerTestResult, 'stages'>;

export interface TestStepOptions {
  /** For all steps together. The runner's cleanup comes on top. */
  timeoutMs: number;
  /** Message for users if every stage passes. */
  successMessage: string;
  /** Converts a failure. `isLate`: the time-out has passed, so the error has no meaning. */
  toOutcome: (error: unknown, stage: TestStageName, isLate: boolean) => TestOutcome;
}

/** Runs the steps up to the first failure. @throws only the reason of `signal`. */
export async function runTestSteps(
  steps: readonly TestStep[],
  { timeoutMs, successMessage, toOutcome }: TestStepOptions,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const tracker = createStageTracker(steps.map(([name]) => name));
  for (const [name, run] of steps) {
    try {
      timedSignal.throwIfAborted();
      tracker.markPassed(name, await rejectOnAbort(run(timedSignal), timedSignal));
    } catch (error) {
      signal.throwIfAborted();
      return tracker.toFailure(name, toOutcome(error, name, timedSignal.aborted));
    }
  }
  return tracker.toSuccess(successMessage);
}

/** Collects the stages of a test. Each lasts from the end of the previous one. */
export interface StageTracker {
  /** A stage may pass several times, e.g. once for each jump server. Its durations are added. */
  markPassed(name: TestStageName, message: string): void;
  /** The first stage that has not passed, or `cleanup` if all have. */
  firstNotPassed(): TestStageName;
  toSuccess(message: string): ServerTestResult;
  /** Marks all stages after the failed one as not tried, even if a jump server passed them. */
  toFailure(name: TestStageName, outcome: TestOutcome): ServerTestResult;
}

/** @param order all stages of the test, in the order in which they run. */
export function createStageTracker(order: readonly TestStageName[]): StageTracker {
  const stages = new Map<TestStageName, TestStage>();
  let startedMs = performance.now();

  function add(name: TestStageName, status: TestStage['status'], message: string): void {
    const nowMs = performance.now();
    const durationMs = (stages.get(name)?.durationMs ?? 0) + Math.round(nowMs - startedMs);
    stages.set(name, { name, status, durationMs, message });
    startedMs = nowMs;
  }

  return {
    markPassed: (name, message) => add(name, 'ok', message),
    firstNotPassed: () => order.find((name) => !stages.has(name)) ?? 'cleanup',
    toSuccess: (message) => ({
      status: 'online',
      message,
      stages: order.map((name) => stages.get(name) ?? skipped(name)),
      hostKey: null,
    }),
    toFailure(failed, outcome) {
      add(failed, 'failed', outcome.message);
      const end = order.indexOf(failed);
      return {
        ...outcome,
        stages: order.map((name, index) => (index <= end ? stages.get(name) : undefined) ?? skipped(name)),
      };
    },
  };
}

function skipped(name: TestStageName): TestStage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}
