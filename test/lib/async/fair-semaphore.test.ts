import { expect, it } from '@jest/globals';
import { createFairSemaphore } from '../../../src/lib/async/fair-semaphore.ts';

const signal = new AbortController().signal;
/** Lets everything that is ready proceed. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Records the order in which permits are given; `end` releases the oldest one. */
function createRecorder(count: number) {
  const semaphore = createFairSemaphore(count);
  const order: string[] = [];
  const releases: (() => void)[] = [];
  return {
    order,
    wait: (user: string, abort = signal) =>
      semaphore.acquire(user, abort).then((release) => {
        order.push(user);
        releases.push(release);
      }),
    end: async () => {
      releases.shift()?.();
      await settle();
    },
  };
}

it('gives each user one permit at a time', async () => {
  const { order, wait, end } = createRecorder(2);
  void Promise.all([wait('a'), wait('a'), wait('a')]);
  await settle();
  expect(order).toEqual(['a']);
  void wait('b');
  await settle();
  expect(order).toEqual(['a', 'b']);
  await end();
  expect(order).toEqual(['a', 'b', 'a']);
});

it('lets users take turns, each of them in the order of the calls', async () => {
  const { order, wait, end } = createRecorder(1);
  void Promise.all([...['a', 'a', 'a', 'a', 'b', 'c', 'b']].map((user) => wait(user)));
  for (let round = 0; round < 7; round += 1) await end();
  await settle();
  for (let round = 0; round < 7; round += 1) await end();
  expect(order).toEqual(['a', 'b', 'c', 'a', 'b', 'a', 'a']);
});

it('never gives more permits than it has', async () => {
  const { order, wait, end } = createRecorder(2);
  void Promise.all(['a', 'b', 'c', 'd'].map((user) => wait(user)));
  await settle();
  expect(order).toEqual(['a', 'b']);
  await end();
  expect(order).toEqual(['a', 'b', 'c']);
});

it('forgets a call whose signal aborts, and a permit that is released twice', async () => {
  const semaphore = createFairSemaphore(1);
  const release = await semaphore.acquire('a', signal);
  const stop = new AbortController();
  const waiting = semaphore.acquire('b', stop.signal);
  stop.abort(new Error('gone'));
  await expect(waiting).rejects.toThrow('gone');
  await expect(semaphore.acquire('b', stop.signal)).rejects.toThrow('gone');
  const next = semaphore.acquire('c', signal);
  const afterNext = semaphore.acquire('d', signal);
  release();
  release();
  await next;
  expect(await Promise.race([afterNext, settle().then(() => 'waits')])).toBe('waits');
});
