import { afterEach, describe, expect, it, jest } from '@jest/globals';
import type { ServerTestResult } from '../../src/runners/runner.ts';
import {
  runStagedTest,
  runTestSteps,
  type PassStage,
  type StagedTestOptions,
  type TestStep,
  type TestOutcome,
} from '../../src/runners/test-stages.ts';

const NOT_TRIED = 'Not tried, since an earlier stage failed.';
const OFFLINE: TestOutcome = { status: 'offline', message: 'Not reachable.', hostKey: null };
const ONLINE = 'Programs run on this server, and are killed when they are stopped.';
const neverSettles = () => new Promise<string>(() => undefined);
const listStages = ({ stages }: ServerTestResult) =>
  stages.map(({ name, status, message }) => [name, status, message]);

describe('runTestSteps', () => {
  const executed: string[] = [];
  const options: StagedTestOptions = {
    timeoutMs: 60_000,
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
    expect(result).toMatchObject({ status: 'online', message: ONLINE, hostKey: null });
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'policy found'],
      ['tcp', 'ok', 'tcp found'],
    ]);
  });

  it('uses the same finding for all types of servers if a step returns none', async () => {
    const result = await runTestSteps([['policy', () => undefined], step('tcp')], options, signal);
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'The address is allowed.'],
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

  it('stops after the timeout and reports the failure as late', async () => {
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

describe('runStagedTest', () => {
  const { signal } = new AbortController();
  const order = ['policy', 'tcp', 'authentication'] as const;
  /** Passes the stages in turn and then fails; the options may name the failed stage. */
  const failAfter = (passed: readonly (typeof order)[number][], outcome: Partial<StagedOutcome> = {}) =>
    runStagedTest(
      order,
      (pass) => {
        for (const name of passed) pass(name, 'found');
        return Promise.reject(new Error('refused'));
      },
      { timeoutMs: 60_000, toOutcome: (_error, stage) => ({ ...OFFLINE, message: stage, ...outcome }) },
      signal,
    );
  type StagedOutcome = ReturnType<StagedTestOptions['toOutcome']>;

  afterEach(() => {
    jest.useRealTimers();
  });

  it('measures each stage from the end of the previous one, and adds up repeated stages', async () => {
    jest.useFakeTimers();
    const passAll = (pass: PassStage) => {
      for (const name of ['policy', 'tcp', 'policy'] as const) {
        jest.advanceTimersByTime(10);
        pass(name, 'found');
      }
      return Promise.resolve();
    };
    const options = { timeoutMs: 60_000, toOutcome: () => OFFLINE };
    const { stages } = await runStagedTest(['policy', 'tcp'], passAll, options, signal);
    expect(stages.map(({ durationMs }) => durationMs)).toEqual([20, 10]);
  });

  it('fails in the first stage that has not passed', async () => {
    const result = await failAfter(['policy']);
    expect(result.message).toBe('tcp');
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'found'],
      ['tcp', 'failed', 'tcp'],
      ['authentication', 'skipped', NOT_TRIED],
    ]);
  });

  it('marks stages after the failed one as skipped, even if a jump server passed them', async () => {
    const result = await failAfter([...order, 'policy'], { ...OFFLINE, failedStage: 'tcp' });
    expect(result).toEqual({ ...OFFLINE, stages: expect.anything() });
    expect(listStages(result)).toEqual([
      ['policy', 'ok', 'found'],
      ['tcp', 'failed', 'Not reachable.'],
      ['authentication', 'skipped', NOT_TRIED],
    ]);
  });

  it('passes on the host key of the outcome', async () => {
    const hostKey = { type: 'ssh-ed25519', fingerprint: 'SHA256:x', hop: null };
    const outcome: TestOutcome = { status: 'host_key_changed', message: 'Another key.', hostKey };
    expect(await failAfter([], outcome)).toMatchObject(outcome);
  });
});
