import { Readable } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import { createModelLists, type ModelListQuery } from '../../../src/gateway/routing/model-lists.ts';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { userOwner } from '../../../src/lib/owner.ts';
import { measureRetainedBytes } from '../../support/retained-bytes.ts';

const MINUTE_MS = 60_000;

/** A fake dialer that returns the lists, a request counter and a manual clock. */
function start(list: (asked: number) => object[] | Promise<object[]>) {
  let asked = 0;
  let nowMs = 0;
  const dialer = {
    request: async () => {
      asked += 1;
      const data = (await list(asked)).map((model) => ({ object: 'model', ...model }));
      const body = Readable.from([Buffer.from(JSON.stringify({ object: 'list', data }))]);
      return { status: 200, headers: {}, body, fromPublicAddress: true };
    },
  } as unknown as Dialer;
  const lists = createModelLists(dialer, () => nowMs);
  const ids = async (overrides: Partial<ModelListQuery> & { isUserSupplied?: boolean } = {}) => {
    const { isUserSupplied = false, ...query } = overrides;
    const baseUrl = 'http://127.0.0.1:1/v1';
    const address = { baseUrl, isUserSupplied, isOperatorSupplied: !isUserSupplied };
    const models = await lists.read({
      ...{
        poolId: 'user:openai',
        owner: userOwner('a'),
        token: 'a',
        address,
        authorization: {},
        loopHeader: null,
      },
      ...query,
    });
    return models?.map(({ id }) => id);
  };
  return { ids, lists, asked: () => asked, advance: (ms: number) => (nowMs += ms) };
}

describe('a provider’s model list', () => {
  it('is cached for 5 minutes', async () => {
    const { ids, advance } = start((asked) => [{ id: `list-${asked}` }]);
    expect(await ids()).toEqual(['list-1']);
    advance(5 * MINUTE_MS - 1);
    expect(await ids()).toEqual(['list-1']);
    advance(1);
    expect(await ids()).toEqual(['list-2']);
  });

  it('is not shown for another key of the pool, whose list replaces it', async () => {
    const { ids } = start((asked) => [{ id: `list-${asked}` }]);
    expect(await ids({ token: 'a' })).toEqual(['list-1']);
    expect(await ids({ token: 'b' })).toEqual(['list-2']);
    expect(await ids({ token: 'b' })).toEqual(['list-2']);
    expect(await ids({ token: 'a' })).toEqual(['list-3']);
    expect(await ids({ poolId: 'other:openai', token: 'a' })).toEqual(['list-4']);
  });

  it('is read once for calls at the same time', async () => {
    const { ids, asked } = start((count) => [{ id: `list-${count}` }]);
    expect(await Promise.all([ids(), ids(), ids()])).toEqual([['list-1'], ['list-1'], ['list-1']]);
    expect(asked()).toBe(1);
  });

  it('stays known when it is old or cannot be read again, until another key is used', async () => {
    const { ids, lists, advance } = start((asked) =>
      asked === 1 ? [{ id: 'good' }] : Promise.reject(new Error('down')),
    );
    const id = ['user:openai', ['a']] as const;
    expect(lists.find(...id)).toEqual({ state: 'unread' });
    await ids();
    expect(lists.isStale(...id)).toBe(false);
    advance(5 * MINUTE_MS);
    expect(lists.isStale(...id)).toBe(true);
    expect(lists.find(...id).state).toBe('read');
    expect(await ids()).toEqual(['good']);
    expect(lists.find(...id).state).toBe('read');
    expect(lists.find('user:openai', ['b'])).toEqual({ state: 'unread' });
    // Another key that cannot read a list does not replace it.
    expect(await ids({ token: 'b' })).toBeUndefined();
    expect(lists.find('user:openai', ['b', 'a']).state).toBe('read');
    expect(lists.find('user:openai', ['b'])).toEqual({ state: 'unreadable' });
  });

  it('is not asked for again within 30 s after it could not be read', async () => {
    const { ids, lists, asked, advance } = start(() => Promise.reject(new Error('down')));
    expect(await ids()).toBeUndefined();
    expect(lists.find('user:openai', ['a'])).toEqual({ state: 'unreadable' });
    advance(30_000 - 1);
    await ids();
    expect(asked()).toBe(1);
    advance(1);
    await ids();
    expect(asked()).toBe(2);
  });

  it('has at most 500 models from a user-supplied address', async () => {
    const { ids } = start(() => Array.from({ length: 700 }, (_, index) => ({ id: `m${index}` })));
    const list = await ids({ isUserSupplied: true });
    expect([list?.length, list?.at(-1)]).toEqual([500, 'm499']);
    expect(await ids({ isUserSupplied: true })).toEqual(list);
    expect(await ids({ poolId: 'provider', isUserSupplied: false })).toHaveLength(700);
  });

  it('is not read from a user-supplied address when it has more than 512 KB or too many members', async () => {
    const members = Object.fromEntries(Array.from({ length: 80 }, (_, at) => [`m${at}`, 0]));
    for (const list of [
      longModels(2_200),
      Array.from({ length: 400 }, (_, at) => ({ id: `m${at}`, ...members })),
    ]) {
      const { ids } = start(() => list);
      expect(await ids({ isUserSupplied: true })).toBeUndefined();
      expect(await ids({ poolId: 'provider' })).toHaveLength(list.length);
    }
  });

  it('has at most 128 KB from a user-supplied address', async () => {
    const { ids } = start(() =>
      Array.from({ length: 500 }, (_, index) => ({
        id: `${index}${'é'.repeat(250)}`,
        owned_by: 'é'.repeat(128),
      })),
    );
    const list = (await ids({ isUserSupplied: true })) ?? [];
    expect(list.length).toBeLessThan(180);
    expect(list.length).toBeGreaterThan(150);
  });

  it('stays in memory while another owner reads lists from many endpoints', async () => {
    const { ids, asked } = start((count) => [{ id: `list-${count}` }]);
    const readAs = async (user: string, poolId: string) => {
      const before = asked();
      await ids({ owner: userOwner(user), poolId });
      return asked() > before;
    };
    await readAs('a', 'a: 0');
    for (let pool = 0; pool < 1_100; pool += 1) await readAs('b', `b: ${pool}`);
    expect(await readAs('a', 'a: 0')).toBe(false);
    // As many as an owner can have pools at once: the lists that were used last.
    expect(await readAs('b', 'b: 1060')).toBe(false);
    expect(await readAs('b', 'b: 1059')).toBe(true);
  });

  it('is removed from memory after an hour without use, when any pool is read next', async () => {
    const { ids, advance } = start((asked) => [{ id: `${asked}` }, ...longModels(500)]);
    const before = await measureRetainedBytes();
    for (let pool = 0; pool < 100; pool += 1)
      await ids({ poolId: `pool-${pool}`, owner: userOwner(`${pool}`) });
    expect((await measureRetainedBytes()) - before).toBeGreaterThan(100 * 100_000);
    advance(60 * MINUTE_MS);
    await ids({ poolId: 'another' });
    expect((await measureRetainedBytes()) - before).toBeLessThan(10 * 100_000);
  });
});

/** Models of 256 characters each. */
const longModels = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ id: `${index}`.padEnd(256, 'm') }));
