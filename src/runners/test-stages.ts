import { rejectOnAbort } from '../lib/net/deadline.ts';
import type { TestStage, TestStageName, ServerTestResult } from './runner.ts';

/** One stage of a test. @returns what was found, for people. */
export type TestStep = readonly [name: TestStageName, take: (signal: AbortSignal) => Promise<string>];

/** What a test says about a server as a whole. */
export type TestOutcome = Omit<ServerTestResult, 'stages'>;

/** What holds for all steps of a test. */
export interface TestStepOptions {
  /** Of all steps together; what the runner then cleans up comes on top. */
  timeoutMs: number;
  /** Said where every stage was passed, for people. */
  successMessage: string;
  /** What a failure means; `isLate`: the time was up, and the error says nothing. */
  toOutcome: (error: unknown, stage: TestStageName, isLate: boolean) => TestOutcome;
}

/** Takes the steps up to the first that fails. @throws the reason of `signal`, and nothing else. */
export async function runTestSteps(
  steps: readonly TestStep[],
  { timeoutMs, successMessage: praise, toOutcome: judge }: TestStepOptions,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const tracker = createStageTracker(steps.map(([name]) => name));
  for (const [name, take] of steps) {
    try {
      timedSignal.throwIfAborted();
      tracker.markPassed(name, await rejectOnAbort(take(timedSignal), timedSignal));
    } catch (error) {
      signal.throwIfAborted();
      return tracker.toFailure(name, judge(error, name, timedSignal.aborted));
    }
  }
  return tracker.toSuccess(praise);
}

/** The stages of a test as they are passed. Each lasts from the end of the one before. */
export interface StageTracker {
  /** A stage may be passed several times, e.g. once for each jump server: it lasts as long as they do together. */
  markPassed(name: TestStageName, message: string): void;
  /** The first that was not passed; where all were, the one that every test ends with. */
  firstNotPassed(): TestStageName;
  toSuccess(praise: string): ServerTestResult;
  /** Whatever comes behind the failed stage was not tried, even if a jump server has passed it. */
  toFailure(name: TestStageName, verdict: TestOutcome): ServerTestResult;
}

/** @param order all stages of the test, in the order in which they are tried. */
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
    toFailure(failed, verdict) {
      add(failed, 'failed', verdict.message);
      const end = order.indexOf(failed);
      return {
        ...verdict,
        stages: order.map((name, index) => (index <= end ? stages.get(name) : undefined) ?? skipped(name)),
      };
    },
  };
}

function skipped(name: TestStageName): TestStage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}
