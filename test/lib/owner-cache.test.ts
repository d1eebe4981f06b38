import { describe, expect, it } from '@jest/globals';
import { createOwnerCache, type OwnerSnapshot } from '../../src/lib/owner-cache.ts';
import type { Owner } from '../../src/lib/owner.ts';

const ADA: Owner = 'user:ada';
const BOB: Owner = 'user:bob';

interface PendingRead {
  owner: Owner;
  /** Completes the read. */
  complete: (snapshot: Partial<OwnerSnapshot<string>>) => void;
  fail: (error: Error) => void;
}

/** Creates a cache whose reads, clock and listening state are controlled by the test. */
function setUp(options: { maxEntries?: number } = {}) {
  const state = { nowMs: 0, isListening: true };
  const reads: PendingRead[] = [];
  const cache = createOwnerCache<string>({
    read: (owner) =>
      new Promise((resolve, reject) => {
        const complete: PendingRead['complete'] = (snapshot) => {
          resolve({ value: '', recordId: `record of ${owner}`, isCacheable: true, ...snapshot });
        };
        reads.push({ owner, complete, fail: reject });
      }),
    isListening: () => state.isListening,
    now: () => state.nowMs,
    ...options,
  });
  /** Calls `get`, completes its read, and returns whether there was a read. */
  async function get(owner: Owner, value: string): Promise<{ value: string; isRead: boolean }> {
    const before = reads.length;
    const result = cache.get(owner);
    const isRead = reads.length > before;
    if (isRead) reads.at(-1)?.complete({ value });
    return { value: await result, isRead };
  }
  return { state, reads, cache, get };
}

describe('a cached pool', () => {
  it('is used for 10 s from the start of the read, for its owner only', async () => {
    const { state, reads, cache, get } = setUp();
    const pending = cache.get(ADA);
    state.nowMs = 4_000;
    reads[0]?.complete({ value: 'first' });
    await pending;
    state.nowMs = 9_999;
    expect(await get(ADA, 'second')).toEqual({ value: 'first', isRead: false });
    expect(await get(BOB, 'other')).toEqual({ value: 'other', isRead: true });
    state.nowMs = 10_000;
    expect(await get(ADA, 'third')).toEqual({ value: 'third', isRead: true });
  });

  it('is shared by all calls during its read', async () => {
    const { reads, cache } = setUp();
    const answers = [cache.get(ADA), cache.get(ADA), cache.get(ADA)];
    expect(reads).toHaveLength(1);
    reads[0]?.complete({ value: 'one' });
    expect(await Promise.all(answers)).toEqual(['one', 'one', 'one']);
  });

  it('is returned but not cached when the owner changed during the read', async () => {
    const { reads, cache, get } = setUp();
    const answer = cache.get(ADA);
    reads[0]?.complete({ value: 'during change', isCacheable: false });
    expect(await answer).toBe('during change');
    expect(await get(ADA, 'after')).toEqual({ value: 'after', isRead: true });
    expect(await get(ADA, 'later')).toEqual({ value: 'after', isRead: false });
  });

  it('is not replaced by an older one when the read fails, and the failure is not cached', async () => {
    const { state, reads, cache, get } = setUp();
    await get(ADA, 'old');
    state.nowMs = 10_000;
    const answer = cache.get(ADA);
    reads.at(-1)?.fail(new Error('unavailable'));
    await expect(answer).rejects.toThrow('unavailable');
    expect(await get(ADA, 'new')).toEqual({ value: 'new', isRead: true });
  });

  it('is evicted when it is the oldest of too many', async () => {
    const { get } = setUp({ maxEntries: 2 });
    const [one, two, three]: Owner[] = ['user:1', 'user:2', 'user:3'];
    for (const owner of [one, two, three]) await get(owner ?? ADA, 'kept');
    expect((await get(three ?? ADA, 'again')).isRead).toBe(false);
    expect((await get(two ?? ADA, 'again')).isRead).toBe(false);
    expect((await get(one ?? ADA, 'again')).isRead).toBe(true);
  });
});

describe('invalidation', () => {
  it('invalidating an owner makes the next call read again, and leaves other owners cached', async () => {
    const { cache, get } = setUp();
    await get(ADA, 'old');
    await get(BOB, 'other');
    cache.invalidate(ADA);
    expect(await get(ADA, 'new')).toEqual({ value: 'new', isRead: true });
    expect((await get(BOB, 'new')).isRead).toBe(false);
  });

  it('invalidating an owner during a read makes later calls read again, and does not cache the running read', async () => {
    const { reads, cache, get } = setUp();
    const before = cache.get(ADA);
    cache.invalidate(ADA);
    const after = cache.get(ADA);
    expect(reads).toHaveLength(2);
    reads[1]?.complete({ value: 'of after' });
    reads[0]?.complete({ value: 'of before' });
    expect(await Promise.all([before, after])).toEqual(['of before', 'of after']);
    expect(await get(ADA, '')).toEqual({ value: 'of after', isRead: false });
  });

  it('invalidating a vault record also invalidates owners whose record is not known yet', async () => {
    const { reads, cache, get } = setUp();
    await get(ADA, 'old');
    await get(BOB, 'other');
    const carol = cache.get('user:carol');
    cache.invalidateRecord(`record of ${ADA}`);
    reads.at(-1)?.complete({ value: 'of before' });
    await carol;
    expect((await get(ADA, 'new')).isRead).toBe(true);
    expect((await get('user:carol', 'new')).isRead).toBe(true);
    expect((await get(BOB, 'new')).isRead).toBe(false);
  });

  it('clear() removes all entries', async () => {
    const { cache, get } = setUp();
    await get(ADA, 'old');
    const pending = cache.get(BOB);
    cache.clear();
    expect((await get(ADA, 'new')).isRead).toBe(true);
    expect((await get(BOB, 'new')).isRead).toBe(true);
    void pending;
  });
});

describe('while notifications are not received', () => {
  it('cached results are not used, and nothing is cached or shared', async () => {
    const { state, reads, cache, get } = setUp();
    await get(ADA, 'old');
    state.isListening = false;
    expect(await get(ADA, 'new')).toEqual({ value: 'new', isRead: true });
    const both = [cache.get(ADA), cache.get(ADA)];
    expect(reads).toHaveLength(4);
    for (const each of reads) each.complete({ value: 'separate' });
    expect(await Promise.all(both)).toEqual(['separate', 'separate']);
    cache.clear();
    state.isListening = true;
    expect((await get(ADA, 'listening again')).isRead).toBe(true);
  });
});

describe('a status write for an owner', () => {
  it('is due once per interval, and again as soon as the owner has changed', async () => {
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

  it('is always due for an owner who is not cached', async () => {
    const { state, cache, get } = setUp();
    expect([cache.isWriteDue(ADA, 'used', 1_000), cache.isWriteDue(ADA, 'used', 1_000)]).toEqual([
      true,
      true,
    ]);
    await get(ADA, 'read');
    state.isListening = false;
    expect([cache.isWriteDue(ADA, 'used', 1_000), cache.isWriteDue(ADA, 'used', 1_000)]).toEqual([
      true,
      true,
    ]);
  });
});
