import { getEventListeners } from 'node:events';
import { describe, expect, it } from '@jest/globals';
import { rejectOnAbort } from '../../../src/lib/async/reject-on-abort.ts';

const never = new Promise<never>(() => undefined);

describe('waiting for work with a signal', () => {
  it('ends with the work', async () => {
    const { signal } = new AbortController();
    expect(await rejectOnAbort(Promise.resolve('done'), signal)).toBe('done');
    await expect(rejectOnAbort(Promise.reject(new Error('failed')), signal)).rejects.toThrow('failed');
  });

  it('ends with the reason of the signal when it aborts before or meanwhile', async () => {
    const controller = new AbortController();
    const waiting = rejectOnAbort(never, controller.signal);
    controller.abort(new Error('gone'));
    await expect(waiting).rejects.toThrow('gone');
    await expect(rejectOnAbort(never, controller.signal)).rejects.toThrow('gone');
  });

  it('leaves no listener on the signal', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const work = Promise.withResolvers<string>();
    const waits = [
      rejectOnAbort(work.promise, signal),
      rejectOnAbort(Promise.reject(new Error('failed')), signal),
    ];
    expect(getEventListeners(signal, 'abort')).toHaveLength(2);
    work.resolve('done');
    await Promise.allSettled(waits);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});
