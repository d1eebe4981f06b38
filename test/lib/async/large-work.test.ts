import { expect, it } from '@jest/globals';
import { createLargeWorkQueue } from '../../../src/lib/async/large-work.ts';

const LARGE = 256 * 1024;
const WORK_MS = 20;

it('does large pieces of work in order, each after a pause of twice the time of the last one', async () => {
  const waitForLargeWork = createLargeWorkQueue();
  const done: { name: string; startMs: number; endMs: number }[] = [];
  const work = async (name: string, bytes: number, workMs: number) => {
    await waitForLargeWork('user', bytes);
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
  const begun = waitForLargeWork('user', LARGE).then(() => (isBegun = true));
  await Promise.race([begun, new Promise((resolve) => setImmediate(resolve))]);
  expect(isBegun).toBe(true);
});

it('lets users take turns, so that the many pieces of one delay others by one piece at most', async () => {
  const waitForLargeWork = createLargeWorkQueue();
  const order: string[] = [];
  const work = async (user: string) => {
    await waitForLargeWork(user, LARGE);
    order.push(user);
  };
  await Promise.all([work('many'), work('many'), work('many'), work('one')]);
  expect(order).toEqual(['many', 'one', 'many', 'many']);
});

it('ends the wait of a request that has ended', async () => {
  const waitForLargeWork = createLargeWorkQueue();
  await waitForLargeWork('user', LARGE);
  const ended = new AbortController();
  const waiting = waitForLargeWork('user', LARGE, ended.signal);
  ended.abort(new Error('the client has gone'));
  await expect(waiting).rejects.toThrow('the client has gone');
});
