import { describe, expect, it } from '@jest/globals';
import { createPlaces } from '../../src/lib/places.ts';

const never = new AbortController().signal;

describe('places', () => {
  it('are taken by no more than there are, and then in turn', async () => {
    const places = createPlaces(2);
    const order: string[] = [];
    const leave = [await places.take(never), await places.take(never)];
    const third = places.take(never).then((done) => (order.push('third'), done));
    const fourth = places.take(never).then((done) => (order.push('fourth'), done));
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
    const places = createPlaces(1);
    const leave = await places.take(never);
    const stop = new AbortController();
    const left = places.take(stop.signal);
    stop.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    await expect(places.take(stop.signal)).rejects.toThrow('gone');
    leave();
    expect(await places.take(never)).toBeInstanceOf(Function);
  });
});
