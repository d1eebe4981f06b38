import { describe, expect, it } from '@jest/globals';
import { createSemaphore } from '../../../src/lib/async/semaphore.ts';

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
