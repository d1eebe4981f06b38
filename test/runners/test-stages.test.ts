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
const OFFLINE: TestOutcome = { status: 'offline', message: 'Nobody there.', hostKey: null };
const never = () => new Promise<string>(() => undefined);
const told = ({ stages }: ServerTestResult) =>
  stages.map(({ name, status, message }) => [name, status, message]);

describe('the steps of a test', () => {
  const taken: string[] = [];
  const course: TestStepOptions = {
    timeoutMs: 60_000,
    successMessage: 'All is well.',
    toOutcome: (error, stage, isLate) => ({ ...OFFLINE, message: `${stage} ${String(error)} ${isLate}` }),
  };
  const step = (name: TestStep[0]): TestStep => [
    name,
    () => {
      taken.push(name);
      return Promise.resolve(`${name} found`);
    },
  ];
  const { signal } = new AbortController();

  it('are online where all are passed, each with what it found', async () => {
    const result = await runTestSteps([step('policy'), step('tcp')], course, signal);
    expect(result).toMatchObject({ status: 'online', message: 'All is well.', hostKey: null });
    expect(told(result)).toEqual([
      ['policy', 'ok', 'policy found'],
      ['tcp', 'ok', 'tcp found'],
    ]);
  });

  it('end with the first that fails, and the others are not tried', async () => {
    taken.length = 0;
    const failing: TestStep = ['tcp', () => Promise.reject(new Error('refused'))];
    const result = await runTestSteps([step('policy'), failing, step('echo'), step('kill')], course, signal);
    expect(taken).toEqual(['policy']);
    expect(result).toMatchObject({ status: 'offline', message: 'tcp Error: refused false' });
    expect(told(result)).toEqual([
      ['policy', 'ok', 'policy found'],
      ['tcp', 'failed', 'tcp Error: refused false'],
      ['echo', 'skipped', NOT_TRIED],
      ['kill', 'skipped', NOT_TRIED],
    ]);
  });

  it('end when their time is up, whatever a step waits for, and are judged as late', async () => {
    const result = await runTestSteps([['tcp', never], step('echo')], { ...course, timeoutMs: 1 }, signal);
    expect(result.message).toMatch(/^tcp TimeoutError: .* true$/);
    expect(result.stages.map(({ status }) => status)).toEqual(['failed', 'skipped']);
  });

  it('are not taken where they were ended before', async () => {
    taken.length = 0;
    await expect(runTestSteps([step('policy')], course, AbortSignal.abort('left'))).rejects.toBe('left');
    expect(taken).toEqual([]);
  });

  it('throw the reason of whoever ends them', async () => {
    const stop = new AbortController();
    const result = runTestSteps([['tcp', never]], course, stop.signal);
    stop.abort('left');
    await expect(result).rejects.toBe('left');
  });
});

describe('a record of stages', () => {
  afterEach(() => {
    jest.useRealTimers();
  });

  it('lets each stage last from the end of the one before, and adds up those that are passed again', () => {
    jest.useFakeTimers();
    const record = createStageTracker(['policy', 'tcp']);
    for (const name of ['policy', 'tcp', 'policy'] as const) {
      jest.advanceTimersByTime(10);
      record.markPassed(name, 'found');
    }
    const { stages } = record.toSuccess('All is well.');
    expect(stages.map(({ durationMs }) => durationMs)).toEqual([20, 10]);
  });

  it('names the first stage that was not passed', () => {
    const record = createStageTracker(['policy', 'tcp', 'cleanup']);
    record.markPassed('policy', 'found');
    expect(record.firstNotPassed()).toBe('tcp');
  });

  it('does not count what a jump server has passed behind the stage that failed', () => {
    const record = createStageTracker(['policy', 'tcp', 'authentication']);
    for (const name of ['policy', 'tcp', 'authentication', 'policy'] as const)
      record.markPassed(name, 'found');
    expect(told(record.toFailure('tcp', OFFLINE))).toEqual([
      ['policy', 'ok', 'found'],
      ['tcp', 'failed', 'Nobody there.'],
      ['authentication', 'skipped', NOT_TRIED],
    ]);
  });

  it('hands on the host key that was shown', () => {
    const hostKey = { type: 'ssh-ed25519', fingerprint: 'SHA256:x', hop: null };
    const verdict: TestOutcome = { status: 'host_key_changed', message: 'Another key.', hostKey };
    expect(createStageTracker(['host_key']).toFailure('host_key', verdict)).toMatchObject(verdict);
  });
});
