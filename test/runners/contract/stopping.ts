import { describe, expect } from '@jest/globals';
import { until } from '../../support/until.ts';
import type { Bench } from './bench.ts';

/** Cannot be asked to end, has a child in a session of its own and one whose parent is gone. */
const STUBBORN = [
  'trap "" HUP INT TERM',
  'setsid sh -c \'trap "" HUP INT TERM; while :; do sleep 1; done\' &',
  '(setsid sh -c \'trap "" HUP INT TERM; echo ready; while :; do sleep 1; done\' &)',
  'while :; do sleep 1; done',
].join('\n');
const CANCELLED = { cause: 'cancelled', code: null, cleanup: 'verified' };

export function describeStopping(bench: Bench): void {
  const { test, start, run, runner, left, subject } = bench;

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
      const underway = start({ program: { command: STUBBORN } });
      const outcome = underway.rest();
      underway.stop.abort('cancelled');
      expect((await outcome).exit).toMatchObject(CANCELLED);
    });

    test('a run that is cancelled at whatever moment of its start leaves nothing', async () => {
      const outcomes = await Promise.all(
        [1, 2, 5, 10, 20, 50, 100].map((delayMs) => {
          const stopping = AbortSignal.timeout(delayMs);
          return run({ program: { command: STUBBORN }, signal: stopping });
        }),
      );
      for (const { exit } of outcomes) expect(exit).toMatchObject(CANCELLED);
    });

    for (const phase of ['preparing', 'started'] as const) {
      test(`a run that is cancelled when it is ${phase} is dead when its end is told`, async () => {
        const underway = start({ program: { command: STUBBORN } });
        await underway.phase(phase);
        underway.stop.abort('cancelled');
        expect((await underway.rest()).exit).toMatchObject(CANCELLED);
        expect(await left()).toEqual([]);
      });
    }

    test('a program that runs is killed with all its children, those in other sessions too', async () => {
      const underway = start({ program: { command: STUBBORN } });
      await underway.until('ready');
      expect(await left()).not.toEqual([]);
      underway.stop.abort('cancelled');
      expect((await underway.rest()).exit).toMatchObject(CANCELLED);
      expect(await left()).toEqual([]);
    });

    test('a program that writes without end is killed', async () => {
      const underway = start({ program: { command: 'echo ready; yes' } });
      await underway.until('ready\ny\n');
      underway.stop.abort('cancelled');
      expect((await underway.rest()).exit).toMatchObject(CANCELLED);
    });

    test('a program is killed while its reader does not read', async () => {
      const underway = start({ program: { command: 'echo ready; yes' } });
      await underway.until('ready\ny\n');
      underway.stop.abort('cancelled');
      await until(left, (found) => found.length === 0, subject.testTimeoutMs);
      expect((await underway.rest()).exit).toMatchObject(CANCELLED);
    });

    test('a program ends when its time is up', async () => {
      const { exit } = await run({ program: { command: STUBBORN }, limits: { timeoutMs: 1_500 } });
      expect(exit).toMatchObject({ cause: 'timeout', code: null, cleanup: 'verified' });
    });

    test('whoever leaves a run ends it', async () => {
      const underway = start({ program: { command: STUBBORN } });
      await underway.until('ready');
      await underway.events.return();
      expect(await left()).toEqual([]);
    });

    test('what is left of a run whose instance died is ended by another instance', async () => {
      const underway = start({ program: { command: STUBBORN } });
      await underway.until('ready');
      const other = await bench.another();
      expect(await other.reap(subject.target(), underway.runId)).toBe('verified');
      expect(await left()).toEqual([]);
      await underway.events.return();
      await other.close();
    });

    test('ending what is left of one run does not touch another', async () => {
      const one = start({ program: { command: STUBBORN } });
      const two = start({ program: { command: 'echo ready; until [ -e go ]; do sleep 1; echo .; done' } });
      await Promise.all([one.until('ready'), two.until('ready')]);
      expect(await runner().reap(subject.target(), one.runId)).toBe('verified');
      await two.until('.\n.\n');
      two.stop.abort('cancelled');
      expect((await two.rest()).exit).toMatchObject(CANCELLED);
      await one.events.return();
    });

    test('a run that nobody knows is not there', async () => {
      expect(await runner().reap(subject.target(), '4cb3a1ae-6a1f-4a19-a8ec-1c1e9d2bd6f1')).toBe('verified');
    });
  });
}
