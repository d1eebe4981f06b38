import { expect, it } from '@jest/globals';
import { waitForLargeWork } from '../../../src/lib/async/large-work.ts';

const LARGE = 256 * 1024;

it('gives each large piece of work an iteration of the event loop of its own, in order', async () => {
  let iteration = 0;
  let isDone = false;
  const count = () => {
    iteration += 1;
    if (!isDone) setImmediate(count);
  };
  setImmediate(count);
  const seen: [string, number][] = [];
  const work = async (name: string, bytes: number) => {
    await waitForLargeWork(bytes);
    seen.push([name, iteration]);
  };
  await Promise.all([
    work('first', LARGE),
    work('second', LARGE),
    work('small', LARGE - 1),
    work('third', LARGE),
  ]);
  isDone = true;
  expect(seen.map(([name]) => name)).toEqual(['small', 'first', 'second', 'third']);
  expect(seen[0]?.[1]).toBe(0);
  expect(new Set(seen.map(([, at]) => at)).size).toBe(4);
});
