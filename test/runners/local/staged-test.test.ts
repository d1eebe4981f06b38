import { describe, expect, it } from '@jest/globals';
import type { ExitEvent, RunEvent } from '../../../src/runners/runner.ts';
import { testLocalServer, type LocalTestDeps } from '../../../src/runners/local/staged-test.ts';

const neverAborted = new AbortController().signal;
const EXIT: ExitEvent = {
  ...{ type: 'exit', cause: 'exited', code: 0, signal: null },
  ...{ cleanup: 'verified', message: null },
};

function createDeps(run: LocalTestDeps['run']): LocalTestDeps {
  return {
    enabled: true,
    findUnavailableReason: () => Promise.resolve(undefined),
    hasFolder: true,
    hasSetup: false,
    run,
  };
}

const output = (text: string): RunEvent => ({ type: 'output', stream: 'stdout', data: Buffer.from(text) });

describe('the test of local execution', () => {
  it('fails in the stage whose finding is wrong, and explains it', async () => {
    const cases: [stage: string, status: string, deps: Partial<LocalTestDeps>, message: RegExp][] = [
      ['policy', 'forbidden', { enabled: false }, /LOCAL_EXECUTION/],
      [
        'permission',
        'forbidden',
        { findUnavailableReason: () => Promise.resolve('It needs root.') },
        /needs root/,
      ],
      ['workspace', 'error', { hasFolder: false }, /working folder/],
      ['echo', 'error', {}, /could not be run/],
    ];
    for (const [stage, status, deps, message] of cases) {
      const run: LocalTestDeps['run'] = async function* () {
        yield output('another output');
        yield await Promise.resolve(EXIT);
      };
      const result = await testLocalServer({ ...createDeps(run), ...deps }, neverAborted);
      expect(result).toMatchObject({ status, message: expect.stringMatching(message), hostKey: null });
      expect(result.stages.find((each) => each.status === 'failed')?.name).toBe(stage);
    }
  });

  it('fails at the kill if the program ended otherwise, and at the cleanup if something may be left', async () => {
    for (const [stage, exit] of [
      ['kill', EXIT],
      ['cleanup', { ...EXIT, cause: 'cancelled', cleanup: 'unverified' }],
    ] as const) {
      const run: LocalTestDeps['run'] = async function* (job) {
        yield output(job.env['NONCE'] ?? 'ready');
        yield await Promise.resolve(exit);
      };
      const { stages } = await testLocalServer(createDeps(run), neverAborted);
      expect(stages.find(({ status }) => status === 'failed')?.name).toBe(stage);
    }
  });

  it('ends after an abort only when its program is cleaned up', async () => {
    const stop = new AbortController();
    const events: string[] = [];
    const run: LocalTestDeps['run'] = async function* (_job, _limits, signal) {
      const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
      // Not at once, or the test of the server would not be waiting for this run yet.
      setImmediate(() => stop.abort(new Error('left')));
      await aborted;
      await new Promise((resolve) => setImmediate(resolve));
      events.push('cleaned up');
      yield EXIT;
    };
    await testLocalServer(createDeps(run), stop.signal).catch((error: unknown) => events.push(String(error)));
    expect(events).toEqual(['cleaned up', 'Error: left']);
  });
});
