import { describe, expect, it } from '@jest/globals';
import { pino } from 'pino';
import { createPoller } from '../../../src/lib/async/poller.ts';

function setUp(rounds: (() => Promise<void>)[]) {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
  let done: () => void = () => undefined;
  const allDone = new Promise<void>((resolve) => {
    done = resolve;
  });
  let round = 0;
  const loop = createPoller(
    'reading',
    1,
    async () => {
      const work = rounds[round];
      round += 1;
      if (round > rounds.length) done();
      await work?.();
    },
    log,
  );
  return { loop, lines, allDone, rounds: () => round };
}

const works = () => Promise.resolve();
const fails = () => Promise.reject(new Error('away'));

describe('a poller', () => {
  it('continues after errors and logs each outage once', async () => {
    const { loop, lines, allDone } = setUp([works, fails, fails, fails, works, works, fails, works]);
    await loop.start();
    await allDone;
    await loop.stop();
    const levels = lines.map((line) => (JSON.parse(line) as { level: number }).level);
    expect(levels).toEqual([40, 30, 40, 30]);
  });

  it('starts even when the first round fails', async () => {
    const { loop } = setUp([fails]);
    await loop.start();
    await loop.stop();
  });

  it('stops after the current round and begins no other', async () => {
    let finish: () => void = () => undefined;
    const { loop, rounds } = setUp([() => new Promise<void>((resolve) => (finish = resolve))]);
    const started = loop.start();
    let isStopped = false;
    const stopped = loop.stop().then(() => {
      isStopped = true;
    });
    await Promise.resolve();
    expect(isStopped).toBe(false);
    finish();
    await Promise.all([started, stopped]);
    // A pause of the same length that begins later ends later: another round would have begun by now.
    const other = setUp([works]);
    await other.loop.start();
    await other.allDone;
    await other.loop.stop();
    expect(rounds()).toBe(1);
  });
});
