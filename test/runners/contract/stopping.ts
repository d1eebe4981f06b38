import { describe, expect } from '@jest/globals';
import { until } from '../../support/until.ts';
import type { ContractHarness } from './harness.ts';

/** Cannot be asked to end, has a child in a session of its own and one whose parent is gone. */
const UNSTOPPABLE_COMMAND = [
  'trap "" HUP INT TERM',
  'setsid sh -c \'trap "" HUP INT TERM; while :; do sleep 1; done\' &',
  '(setsid sh -c \'trap "" HUP INT TERM; echo ready; while :; do sleep 1; done\' &)',
  'while :; do sleep 1; done',
].join('\n');
const CANCELLED = { cause: 'cancelled', code: null, cleanup: 'verified' };

export function describeStopping(bench: ContractHarness): void {
  const { test, start, run, runner, listLeaks: left, subject } = bench;

  describe('stopping', () => {
    test('a run that was cancelled before it started never starts', async () => {
      const { exit, phases } = await run({
        program: { command: 'echo ran' },
        signal: AbortSignal.abort('cancelled'),
      });
      expect(exit).toMatchObject(CANCELLED);
      expect(phases).toEqual([]);
    });

    test('a run that is cancelled at once leaves nothing', async () => {
      const underway = start({ program: { command: UNSTOPPABLE_COMMAND } });
      const outcome = underway.readToEnd();
      underway.stop.abort('cancelled');
      expect((await outcome).exit).toMatchObject(CANCELLED);
    });

    test('a run that is cancelled at whatever moment of its start leaves nothing', async () => {
      const outcomes = await Promise.all(
        [1, 2, 5, 10, 20, 50, 100].map((delayMs) => {
          const stopping = AbortSignal.timeout(delayMs);
          return run({ program: { command: UNSTOPPABLE_COMMAND }, signal: stopping });
        }),
      );
      for (const { exit } of outcomes) expect(exit).toMatchObject(CANCELLED);
    });

    for (const phase of ['preparing', 'started'] as const) {
      test(`a run that is cancelled when it is ${phase} is dead when its end is told`, async () => {
        const underway = start({ program: { command: UNSTOPPABLE_COMMAND } });
        await underway.readUntilPhase(phase);
        underway.stop.abort('cancelled');
        expect((await underway.readToEnd()).exit).toMatchObject(CANCELLED);
        expect(await left()).toEqual([]);
      });
    }

    test('a program that runs is killed with all its children, those in other sessions too', async () => {
      const underway = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await underway.readUntil('ready');
      expect(await left()).not.toEqual([]);
      underway.stop.abort('cancelled');
      expect((await underway.readToEnd()).exit).toMatchObject(CANCELLED);
      expect(await left()).toEqual([]);
    });

    test('a program that writes without end is killed', async () => {
      const underway = start({ program: { command: 'echo ready; yes' } });
      await underway.readUntil('ready\ny\n');
      underway.stop.abort('cancelled');
      expect((await underway.readToEnd()).exit).toMatchObject(CANCELLED);
    });

    test('a program is killed while its reader does not read', async () => {
      const underway = start({ program: { command: 'echo ready; yes' } });
      await underway.readUntil('ready\ny\n');
      underway.stop.abort('cancelled');
      await until(left, (found) => found.length === 0, subject.testTimeoutMs);
      expect((await underway.readToEnd()).exit).toMatchObject(CANCELLED);
    });

    test('a program ends when its time is up', async () => {
      const { exit } = await run({ program: { command: UNSTOPPABLE_COMMAND }, limits: { timeoutMs: 1_500 } });
      expect(exit).toMatchObject({ cause: 'timeout', code: null, cleanup: 'verified' });
    });

    test('whoever leaves a run ends it', async () => {
      const underway = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await underway.readUntil('ready');
      await underway.events.return();
      expect(await left()).toEqual([]);
    });

    test('what is left of a run whose instance died is ended by another instance', async () => {
      const underway = start({ program: { command: UNSTOPPABLE_COMMAND } });
      await underway.readUntil('ready');
      const other = await bench.createOtherRunner();
      expect(await other.cleanUp(subject.target(), underway.runId)).toBe('verified');
      expect(await left()).toEqual([]);
      await underway.events.return();
      await other.close();
    });

    test('ending what is left of one run does not touch another', async () => {
      const one = start({ program: { command: UNSTOPPABLE_COMMAND } });
      const two = start({ program: { command: 'echo ready; until [ -e go ]; do sleep 1; echo .; done' } });
      await Promise.all([one.readUntil('ready'), two.readUntil('ready')]);
      expect(await runner().cleanUp(subject.target(), one.runId)).toBe('verified');
      await two.readUntil('.\n.\n');
      two.stop.abort('cancelled');
      expect((await two.readToEnd()).exit).toMatchObject(CANCELLED);
      await one.events.return();
    });

    test('a run that nobody knows is not there', async () => {
      expect(await runner().cleanUp(subject.target(), '4cb3a1ae-6a1f-4a19-a8ec-1c1e9d2bd6f1')).toBe(
        'verified',
      );
    });
  });
}
