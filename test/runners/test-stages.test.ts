import { afterEach, describe, expect, it, jest } from '@jest/globals';
import type { ServerTestResult } from '../../src/runners/runner.ts';
import {
  createStageTracker,
  runTestSteps,
  type TestStepOptions,
  type TestStep,
  type TestOutcome,
} from '../../src/runners/test-stages.ts';

const NOT_TRIED = 'Not tried, since an earlier stage failed.';
const OFFLINE: TestOutcome = { status: 'offline', message: 'Not reachable.', hostKey: null };
const neverSettles = () => new Promise<string>(() => undefined);
const listStages = ({ stages }: ServerTestResult) =>
  stages.map(({ name, status, message }) => [name, status, message]);

describe('runTestSteps', () => {
  const executed: string[] = [];
  const options: TestStepOptions = {
    timeoutMs: 60_000,
    successMessage: 'All is well.',
    toOutcome: (error, stage, isLate) => ({ ...OFFLINE, message: `${stage} ${String(error)} ${isLate}` }),
  };
  const step = (name: TestStep[0]): TestStep => [
    name,
    () => {
      executed.push(name);
      return Promise.resolve(`${name} found`);
    },
  ];
  const { signal } = new AbortController();

  it('returns online with the message of each step if all pass', async () => {
    const result = await runTestSteps([step('policy'), step('tcp')], options, signal);
    expect(result).toMatchObject({ status: 'online', message: 'All is well.', hostKey: null });
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'policy found'],
      ['tcp', 'ok', 'tcp found'],
    ]);
  });

  it('stops at the first step that fails, and skips the others', async () => {
    executed.length = 0;
    const failing: TestStep = ['tcp', () => Promise.reject(new Error('refused'))];
    const result = await runTestSteps([step('policy'), failing, step('echo'), step('kill')], options, signal);
    expect(executed).toEqual(['policy']);
    expect(result).toMatchObject({ status: 'offline', message: 'tcp Error: refused false' });
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'policy found'],
      ['tcp', 'failed', 'tcp Error: refused false'],
      ['echo', 'skipped', NOT_TRIED],
      ['kill', 'skipped', NOT_TRIED],
    ]);
  });

  it('stops after the time-out and reports the failure as late', async () => {
    const result = await runTestSteps(
      [['tcp', neverSettles], step('echo')],
      { ...options, timeoutMs: 1 },
      signal,
    );
    expect(result.message).toMatch(/^tcp TimeoutError: .* true$/);
    expect(result.stages.map(({ status }) => status)).toEqual(['failed', 'skipped']);
  });

  it('runs no step if the signal is already aborted', async () => {
    executed.length = 0;
    await expect(runTestSteps([step('policy')], options, AbortSignal.abort('left'))).rejects.toBe('left');
    expect(executed).toEqual([]);
  });

  it('throws the reason of the signal', async () => {
    const stop = new AbortController();
    const result = runTestSteps([['tcp', neverSettles]], options, stop.signal);
    stop.abort('left');
    await expect(result).rejects.toBe('left');
  });
});

describe('a stage tracker', () => {
  afterEach(() => {
    jest.useRealTimers();
  });

  it('measures each stage from the end of the previous one, and adds up repeated stages', () => {
    jest.useFakeTimers();
    const tracker = createStageTracker(['policy', 'tcp']);
    for (const name of ['policy', 'tcp', 'policy'] as const) {
      jest.advanceTimersByTime(10);
      tracker.markPassed(name, 'found');
    }
    const { stages } = tracker.toSuccess('All is well.');
    expect(stages.map(({ durationMs }) => durationMs)).toEqual([20, 10]);
  });

  it('finds the first stage that has not passed', () => {
    const tracker = createStageTracker(['policy', 'tcp', 'cleanup']);
    tracker.markPassed('policy', 'found');
    expect(tracker.firstNotPassed()).toBe('tcp');
  });

  it('marks stages after the failed one as skipped, even if a jump server passed them', () => {
    const tracker = createStageTracker(['policy', 'tcp', 'authentication']);
    for (const name of ['policy', 'tcp', 'authentication', 'policy'] as const)
      tracker.markPassed(name, 'found');
    expect(listStages(tracker.toFailure('tcp', OFFLINE))).toEqual([
      ['policy', 'ok', 'found'],
      ['tcp', 'failed', 'Not reachable.'],
      ['authentication', 'skipped', NOT_TRIED],
    ]);
  });

  it('passes on the host key of the outcome', () => {
    const hostKey = { type: 'ssh-ed25519', fingerprint: 'SHA256:x', hop: null };
    const outcome: TestOutcome = { status: 'host_key_changed', message: 'Another key.', hostKey };
    expect(createStageTracker(['host_key']).toFailure('host_key', outcome)).toMatchObject(outcome);
  });
});
