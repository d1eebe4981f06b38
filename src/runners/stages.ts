import { untilAborted } from '../lib/deadline.ts';
import type { Stage, StageName, TestResult } from './runner.ts';

/** One stage of a test. @returns what was found, for people. */
export type Step = readonly [name: StageName, take: (signal: AbortSignal) => Promise<string>];

/** What a test says about a server as a whole. */
export type Verdict = Omit<TestResult, 'stages'>;

/** What holds for all steps of a test. */
export interface Course {
  /** Of all steps together; what the runner then cleans up comes on top. */
  timeoutMs: number;
  /** Said where every stage was passed, for people. */
  praise: string;
  /** What a failure means; `isLate`: the time was up, and the error says nothing. */
  judge: (error: unknown, stage: StageName, isLate: boolean) => Verdict;
}

/** Takes the steps up to the first that fails. @throws the reason of `signal`, and nothing else. */
export async function takeSteps(
  steps: readonly Step[],
  { timeoutMs, praise, judge }: Course,
  signal: AbortSignal,
): Promise<TestResult> {
  const bound = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  const record = createStageRecord(steps.map(([name]) => name));
  for (const [name, take] of steps) {
    try {
      bound.throwIfAborted();
      record.pass(name, await untilAborted(take(bound), bound));
    } catch (error) {
      signal.throwIfAborted();
      return record.fail(name, judge(error, name, bound.aborted));
    }
  }
  return record.succeed(praise);
}

/** The stages of a test as they are passed. Each lasts from the end of the one before. */
export interface StageRecord {
  /** A stage may be passed several times, e.g. once for each jump server: it lasts as long as they do together. */
  pass(name: StageName, message: string): void;
  /** The first that was not passed; where all were, the one that every test ends with. */
  next(): StageName;
  succeed(praise: string): TestResult;
  /** Whatever comes behind the failed stage was not tried, even if a jump server has passed it. */
  fail(name: StageName, verdict: Verdict): TestResult;
}

/** @param order all stages of the test, in the order in which they are tried. */
export function createStageRecord(order: readonly StageName[]): StageRecord {
  const stages = new Map<StageName, Stage>();
  let sinceMs = performance.now();

  function add(name: StageName, status: Stage['status'], message: string): void {
    const nowMs = performance.now();
    const durationMs = (stages.get(name)?.durationMs ?? 0) + Math.round(nowMs - sinceMs);
    stages.set(name, { name, status, durationMs, message });
    sinceMs = nowMs;
  }

  return {
    pass: (name, message) => add(name, 'ok', message),
    next: () => order.find((name) => !stages.has(name)) ?? 'cleanup',
    succeed: (message) => ({
      status: 'online',
      message,
      stages: order.map((name) => stages.get(name) ?? skipped(name)),
      hostKey: null,
    }),
    fail(failed, verdict) {
      add(failed, 'failed', verdict.message);
      const end = order.indexOf(failed);
      return {
        ...verdict,
        stages: order.map((name, index) => (index <= end ? stages.get(name) : undefined) ?? skipped(name)),
      };
    },
  };
}

function skipped(name: StageName): Stage {
  return { name, status: 'skipped', durationMs: 0, message: 'Not tried, since an earlier stage failed.' };
}
