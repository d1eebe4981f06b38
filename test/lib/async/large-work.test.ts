import { expect, it } from '@jest/globals';
import { createLargeWorkQueue } from '../../../src/lib/async/large-work.ts';

const LARGE = 256 * 1024;
const WORK_MS = 20;

it('does large pieces of work in order, each after a pause of twice the time of the last one', async () => {
  const waitForLargeWork = createLargeWorkQueue();
  const done: { name: string; startMs: number; endMs: number }[] = [];
  const work = async (name: string, bytes: number, workMs: number) => {
    await waitForLargeWork(bytes);
    const startMs = performance.now();
    while (performance.now() - startMs < workMs);
    done.push({ name, startMs, endMs: performance.now() });
  };
  await Promise.all([
    work('first', LARGE, WORK_MS),
    work('second', LARGE, WORK_MS),
    work('small', LARGE - 1, 0),
    work('third', LARGE, 0),
  ]);
  const [small, first, second, third] = done;
  expect(done.map(({ name }) => name)).toEqual(['small', 'first', 'second', 'third']);
  if (small === undefined || first === undefined || second === undefined || third === undefined) return;
  // A timer may end early by a millisecond, and a fraction of one is cut.
  expect(second.startMs - first.endMs).toBeGreaterThanOrEqual(2 * WORK_MS - 2);
  expect(third.startMs - second.endMs).toBeGreaterThanOrEqual(2 * WORK_MS - 2);
});

it('begins at once when no other piece waits', async () => {
  const waitForLargeWork = createLargeWorkQueue();
  let isBegun = false;
  const begun = waitForLargeWork(LARGE).then(() => (isBegun = true));
  await Promise.race([begun, new Promise((resolve) => setImmediate(resolve))]);
  expect(isBegun).toBe(true);
});
