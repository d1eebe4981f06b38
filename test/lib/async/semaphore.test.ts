import { describe, expect, it } from '@jest/globals';
import { createSemaphore } from '../../../src/lib/async/semaphore.ts';

const never = new AbortController().signal;

describe('places', () => {
  it('are taken by no more than there are, and then in turn', async () => {
    const places = createSemaphore(2);
    const order: string[] = [];
    const leave = [await places.acquire(never), await places.acquire(never)];
    const third = places.acquire(never).then((done) => (order.push('third'), done));
    const fourth = places.acquire(never).then((done) => (order.push('fourth'), done));
    await new Promise(setImmediate);
    expect(order).toEqual([]);
    leave[0]?.();
    leave[0]?.();
    const leaveThird = await third;
    await new Promise(setImmediate);
    expect(order).toEqual(['third']);
    leaveThird();
    await fourth;
    expect(order).toEqual(['third', 'fourth']);
  });

  it('are no longer waited for by whoever has left', async () => {
    const places = createSemaphore(1);
    const leave = await places.acquire(never);
    const stop = new AbortController();
    const left = places.acquire(stop.signal);
    stop.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    await expect(places.acquire(stop.signal)).rejects.toThrow('gone');
    leave();
    expect(await places.acquire(never)).toBeInstanceOf(Function);
  });
});
