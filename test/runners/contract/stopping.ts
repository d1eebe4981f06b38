import { describe, expect } from '@jest/globals';
import { until } from '../../support/until.ts';
import { cleanUpResultOf, type ContractHarness } from './harness.ts';

/** Ignores HUP, INT and TERM; has one child in its own session, and one whose parent has ended. */
const UNSTOPPABLE_COMMAND = [
  'trap "" HUP INT TERM',
  'setsid sh -c \'trap "" HUP INT TERM; while :; do sleep 1; done\' &',
  '(setsid sh -c \'trap "" HUP INT TERM; echo ready; while :; do sleep 1; done\' &)',
  'while :; do sleep 1; done',
].join('\n');
const CANCELLED = { cause: 'cancelled', code: null, cleanup: 'verified' };

export function describeStopping(harness: ContractHarness): void {
  const { test, start, run, runner, listLeaks, subject } = harness;
  const ofOrphans = cleanUpResultOf(subject);

  describe('stopping', () => {
    test('a run that was cancelled before it started never starts', async () => {
      const { exit, phases } = await run({
        program: { command: 'echo ran' },
        signal: AbortSignal.abort('cancelled'),
      });
      expect(exit).toMatchObject(CANCELLED);
      expect(phases).toEqual([]);
    });

    test('a run that is cancelled at once leaves nothing behind', async () => {
      const started = start({ program: { command: UNSTOPPABLE_COMMAND } });
      const outcome = started.readToEnd();
      started.stop.abort('cancelled');
      expect((await outcome).exit).toMatchObject(CANCELLED);
    });

    test('a run that is cancelled at any moment of its start leaves nothing behind', async () => {
      const outcomes = await Promise.all(
        [1, 2, 5, 10, 20, 50, 100].map((delayMs) => {
          const stopping = AbortSignal.timeout(delayMs);
          return run({ program: { command: UNSTOPPABLE_COMMAND }, signal: stopping });
        }),
      );
      for (const { exit } of outcomes) expect(exit).toMatchObject(CANCELLED);
    });

    for (const phase of ['preparing', 'started'] as const) {
      test(`a run that is cancelled in the phase ${phase} has no processes when its exit is reported`, async () => {
        const started = start({ program: { command: UNSTOPPABLE_COMMAND } });
        await started.readUntilPhase(phase);
        started.stop.abort('cancelled');
        expect((await started.readToEnd()).exit).toMatchObject(CANCELLED);
        expect(await listLeaks()).toEqual([]);
      });
    }

    test('a running program is killed with all its children, also those in other sessions', async () => {
      const started = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await started.readUntil('ready');
      expect(await listLeaks()).not.toEqual([]);
      started.stop.abort('cancelled');
      expect((await started.readToEnd()).exit).toMatchObject(CANCELLED);
      expect(await listLeaks()).toEqual([]);
    });

    test('a program that writes endlessly is killed', async () => {
      const started = start({ program: { command: 'echo ready; yes' } });
      await started.readUntil('ready\ny\n');
      started.stop.abort('cancelled');
      expect((await started.readToEnd()).exit).toMatchObject(CANCELLED);
    });

    test('a program is killed while its output is not read', async () => {
      const started = start({ program: { command: 'echo ready; yes' } });
      await started.readUntil('ready\ny\n');
      started.stop.abort('cancelled');
      await until(listLeaks, (found) => found.length === 0, subject.testTimeoutMs);
      expect((await started.readToEnd()).exit).toMatchObject(CANCELLED);
    });

    test('a program is killed after its timeout', async () => {
      const { exit } = await run({ program: { command: UNSTOPPABLE_COMMAND }, limits: { timeoutMs: 1_500 } });
      expect(exit).toMatchObject({ cause: 'timeout', code: null, cleanup: 'verified' });
    });

    test('a caller that stops reading ends the run', async () => {
      const started = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await started.readUntil('ready');
      await started.events.return();
      expect(await listLeaks()).toEqual([]);
    });

    test('another instance cleans up the run of an instance that died', async () => {
      const started = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await started.readUntil('ready');
      const other = await harness.createOtherRunner();
      expect(await other.cleanUp(subject.target(), started.runId)).toBe(ofOrphans);
      expect(await listLeaks()).toEqual([]);
      await started.events.return();
      await other.close();
    });

    test('cleaning up one run does not affect another', async () => {
      const one = start({ program: { command: UNSTOPPABLE_COMMAND } });
      const two = start({ program: { command: 'echo ready; until [ -e go ]; do sleep 1; echo .; done' } });
      await Promise.all([one.readUntil('ready'), two.readUntil('ready')]);
      expect(await runner().cleanUp(subject.target(), one.runId)).toBe(ofOrphans);
      await two.readUntil('.\n.\n');
      two.stop.abort('cancelled');
      expect((await two.readToEnd()).exit).toMatchObject(CANCELLED);
      await one.events.return();
    });

    test('the cleanup of an unknown run is verified where a search finds everything', async () => {
      expect(await runner().cleanUp(subject.target(), '4cb3a1ae-6a1f-4a19-a8ec-1c1e9d2bd6f1')).toBe(
        ofOrphans,
      );
    });
  });
}
