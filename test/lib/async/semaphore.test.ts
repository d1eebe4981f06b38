import { describe, expect, it } from '@jest/globals';
import { createSemaphore, runWithPermit } from '../../../src/lib/async/semaphore.ts';

const never = new AbortController().signal;

describe('a semaphore', () => {
  it('grants at most its number of permits, the others in the order of the calls', async () => {
    const semaphore = createSemaphore(2);
    const order: string[] = [];
    const release = [await semaphore.acquire(never), await semaphore.acquire(never)];
    const third = semaphore.acquire(never).then((done) => (order.push('third'), done));
    const fourth = semaphore.acquire(never).then((done) => (order.push('fourth'), done));
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    release[0]?.();
    release[0]?.();
    const releaseThird = await third;
    await new Promise(setImmediate);
    expect(order).toEqual(['third']);
    releaseThird();
    await fourth;
    expect(order).toEqual(['third', 'fourth']);
  });

  it('rejects a waiting call when its signal aborts', async () => {
    const semaphore = createSemaphore(1);
    const release = await semaphore.acquire(never);
    const stop = new AbortController();
    const left = semaphore.acquire(stop.signal);
    stop.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    await expect(semaphore.acquire(stop.signal)).rejects.toThrow('gone');
    release();
    expect(await semaphore.acquire(never)).toBeInstanceOf(Function);
  });
});

describe('work with a permit', () => {
  const createTimeoutError = () => new Error('late');

  it('starts when the work before it has ended, even if that failed', async () => {
    const semaphore = createSemaphore(1);
    const first = Promise.withResolvers<string>();
    const runs = [
      runWithPermit(semaphore, Date.now() + 60_000, createTimeoutError, () => first.promise),
      runWithPermit(semaphore, Date.now() + 60_000, createTimeoutError, () => Promise.resolve('second')),
    ];
    first.reject(new Error('failed'));
    expect(await Promise.allSettled(runs)).toEqual([
      { status: 'rejected', reason: new Error('failed') },
      { status: 'fulfilled', value: 'second' },
    ]);
  });

  it('is rejected when it does not start by the deadline, and takes no permit', async () => {
    const semaphore = createSemaphore(1);
    const release = await semaphore.acquire(never);
    const late = runWithPermit(semaphore, Date.now() - 1, createTimeoutError, () => Promise.resolve('run'));
    await expect(late).rejects.toThrow('late');
    release();
    const next = runWithPermit(semaphore, Date.now() - 1, createTimeoutError, () => Promise.resolve('run'));
    expect(await next).toBe('run');
  });
});
