import { describe, expect, it } from '@jest/globals';
import { createPoolCache, type PoolSnapshot } from '../../src/keys/pool-cache.ts';
import type { Owner } from '../../src/lib/owner.ts';

const ADA: Owner = 'user:ada';
const BOB: Owner = 'user:bob';

interface Held {
  owner: Owner;
  /** Ends the reading. */
  end: (reading: Partial<PoolSnapshot<string>>) => void;
  fail: (error: Error) => void;
}

/** A cache whose readings end when the test says so, and whose clock and hearing are the test's. */
function setUp(options: { maxEntries?: number } = {}) {
  const state = { nowMs: 0, isHeard: true };
  const held: Held[] = [];
  const cache = createPoolCache<string>({
    read: (owner) =>
      new Promise((resolve, reject) => {
        const end: Held['end'] = (reading) => {
          resolve({ value: '', recordId: `record of ${owner}`, isCacheable: true, ...reading });
        };
        held.push({ owner, end, fail: reject });
      }),
    isListening: () => state.isHeard,
    now: () => state.nowMs,
    ...options,
  });
  /** Reads to the end; answers whether the source was asked. */
  async function get(owner: Owner, value: string): Promise<{ got: string; asked: boolean }> {
    const before = held.length;
    const answer = cache.get(owner);
    const asked = held.length > before;
    if (asked) held.at(-1)?.end({ value });
    return { got: await answer, asked };
  }
  return { state, held, cache, get };
}

describe('what was read of an owner', () => {
  it('serves for 10 s from the start of the reading, and each owner alone', async () => {
    const { state, held, cache, get } = setUp();
    const reading = cache.get(ADA);
    state.nowMs = 4_000;
    held[0]?.end({ value: 'first' });
    await reading;
    state.nowMs = 9_999;
    expect(await get(ADA, 'second')).toEqual({ got: 'first', asked: false });
    expect(await get(BOB, 'other')).toEqual({ got: 'other', asked: true });
    state.nowMs = 10_000;
    expect(await get(ADA, 'third')).toEqual({ got: 'third', asked: true });
  });

  it('is shared by all who come while it is read', async () => {
    const { held, cache } = setUp();
    const answers = [cache.get(ADA), cache.get(ADA), cache.get(ADA)];
    expect(held).toHaveLength(1);
    held[0]?.end({ value: 'one' });
    expect(await Promise.all(answers)).toEqual(['one', 'one', 'one']);
  });

  it('serves those who asked and is not kept when the owner was being changed meanwhile', async () => {
    const { held, cache, get } = setUp();
    const answer = cache.get(ADA);
    held[0]?.end({ value: 'in between', isCacheable: false });
    expect(await answer).toBe('in between');
    expect(await get(ADA, 'after')).toEqual({ got: 'after', asked: true });
    expect(await get(ADA, 'later')).toEqual({ got: 'after', asked: false });
  });

  it('is not kept when it failed, and nothing older serves then', async () => {
    const { state, held, cache, get } = setUp();
    await get(ADA, 'old');
    state.nowMs = 10_000;
    const answer = cache.get(ADA);
    held.at(-1)?.fail(new Error('away'));
    await expect(answer).rejects.toThrow('away');
    expect(await get(ADA, 'new')).toEqual({ got: 'new', asked: true });
  });

  it('is bounded: the oldest goes first', async () => {
    const { get } = setUp({ maxEntries: 2 });
    const [one, two, three]: Owner[] = ['user:1', 'user:2', 'user:3'];
    for (const owner of [one, two, three]) await get(owner ?? ADA, 'kept');
    expect((await get(three ?? ADA, 'again')).asked).toBe(false);
    expect((await get(two ?? ADA, 'again')).asked).toBe(false);
    expect((await get(one ?? ADA, 'again')).asked).toBe(true);
  });
});

describe('forgetting', () => {
  it('an owner makes the next reader ask, and leaves others', async () => {
    const { cache, get } = setUp();
    await get(ADA, 'old');
    await get(BOB, 'other');
    cache.invalidate(ADA);
    expect(await get(ADA, 'new')).toEqual({ got: 'new', asked: true });
    expect((await get(BOB, 'new')).asked).toBe(false);
  });

  it('an owner who is being read: later readers do not share that, nor is it kept', async () => {
    const { held, cache, get } = setUp();
    const before = cache.get(ADA);
    cache.invalidate(ADA);
    const after = cache.get(ADA);
    expect(held).toHaveLength(2);
    held[1]?.end({ value: 'of after' });
    held[0]?.end({ value: 'of before' });
    expect(await Promise.all([before, after])).toEqual(['of before', 'of after']);
    expect(await get(ADA, '')).toEqual({ got: 'of after', asked: false });
  });

  it('a vault record makes its owner be read again, and also those of whom nobody knows yet', async () => {
    const { held, cache, get } = setUp();
    await get(ADA, 'old');
    await get(BOB, 'other');
    const carol = cache.get('user:carol');
    cache.invalidateRecord(`record of ${ADA}`);
    held.at(-1)?.end({ value: 'of before' });
    await carol;
    expect((await get(ADA, 'new')).asked).toBe(true);
    expect((await get('user:carol', 'new')).asked).toBe(true);
    expect((await get(BOB, 'new')).asked).toBe(false);
  });

  it('all leaves nothing', async () => {
    const { cache, get } = setUp();
    await get(ADA, 'old');
    const reading = cache.get(BOB);
    cache.clear();
    expect((await get(ADA, 'new')).asked).toBe(true);
    expect((await get(BOB, 'new')).asked).toBe(true);
    void reading;
  });
});

describe('while changes by others are not heard of', () => {
  it('nothing that is remembered serves, and nothing is remembered or shared', async () => {
    const { state, held, cache, get } = setUp();
    await get(ADA, 'old');
    state.isHeard = false;
    expect(await get(ADA, 'new')).toEqual({ got: 'new', asked: true });
    const both = [cache.get(ADA), cache.get(ADA)];
    expect(held).toHaveLength(4);
    for (const each of held) each.end({ value: 'own' });
    expect(await Promise.all(both)).toEqual(['own', 'own']);
    cache.clear();
    state.isHeard = true;
    expect((await get(ADA, 'heard again')).asked).toBe(true);
  });
});

describe('a note about an owner', () => {
  it('is news once in its time, and again as soon as anything of the owner has changed', async () => {
    const { state, cache, get } = setUp();
    await get(ADA, 'read');
    expect(cache.isWriteDue(ADA, 'used', 1_000)).toBe(true);
    expect(cache.isWriteDue(ADA, 'used', 1_000)).toBe(false);
    expect(cache.isWriteDue(ADA, 'other', 1_000)).toBe(true);
    state.nowMs = 1_000;
    expect(cache.isWriteDue(ADA, 'used', 1_000)).toBe(true);
    cache.invalidate(ADA);
    await get(ADA, 'read again');
    expect(cache.isWriteDue(ADA, 'used', 1_000)).toBe(true);
  });

  it('is always news of an owner of whom nothing is remembered', async () => {
    const { state, cache, get } = setUp();
    expect([cache.isWriteDue(ADA, 'used', 1_000), cache.isWriteDue(ADA, 'used', 1_000)]).toEqual([
      true,
      true,
    ]);
    await get(ADA, 'read');
    state.isHeard = false;
    expect([cache.isWriteDue(ADA, 'used', 1_000), cache.isWriteDue(ADA, 'used', 1_000)]).toEqual([
      true,
      true,
    ]);
  });
});
