import { Readable } from 'node:stream';
import { describe, expect, it } from '@jest/globals';
import {
  createFindProviderModels,
  type ProviderModelsQuery,
} from '../../../../src/gateway/surfaces/models/provider-models.ts';
import type { Dialer } from '../../../../src/lib/net/dialer.ts';
import { measureRetainedBytes } from '../../../support/retained-bytes.ts';

const MINUTE_MS = 60_000;

/** Lists on demand: what a dialer answers with, how often it was asked, and a clock to turn. */
function start(list: (asked: number) => object[]) {
  let asked = 0;
  let nowMs = 0;
  const dialer = {
    request: () => {
      asked += 1;
      const data = list(asked).map((model) => ({ object: 'model', ...model }));
      const body = Readable.from([Buffer.from(JSON.stringify({ object: 'list', data }))]);
      return Promise.resolve({ status: 200, headers: {}, body, fromPublicAddress: true });
    },
  } as unknown as Dialer;
  const find = createFindProviderModels(dialer, () => nowMs);
  const ids = async (own: Partial<ProviderModelsQuery> & { isUsers?: boolean } = {}) => {
    const { isUsers = false, ...question } = own;
    const baseUrl = 'http://127.0.0.1:1/v1';
    const address = { baseUrl, isUserSupplied: isUsers, isOperatorSupplied: !isUsers };
    const signal = new AbortController().signal;
    const models = await find({
      ...{ pool: 'user:openai', key: 'a', address, authorization: {}, loopHeader: null, signal },
      ...question,
    });
    return models?.map(({ id }) => id);
  };
  return { ids, asked: () => asked, advance: (ms: number) => (nowMs += ms) };
}

describe('the models that a provider lists', () => {
  it('are remembered for 5 minutes', async () => {
    const { ids, advance: pass } = start((asked) => [{ id: `list-${asked}` }]);
    expect(await ids()).toEqual(['list-1']);
    pass(5 * MINUTE_MS - 1);
    expect(await ids()).toEqual(['list-1']);
    pass(1);
    expect(await ids()).toEqual(['list-2']);
  });

  it('are not shown for another key of the pool, whose list then takes the place', async () => {
    const { ids } = start((asked) => [{ id: `list-${asked}` }]);
    expect(await ids({ key: 'a' })).toEqual(['list-1']);
    expect(await ids({ key: 'b' })).toEqual(['list-2']);
    expect(await ids({ key: 'b' })).toEqual(['list-2']);
    expect(await ids({ key: 'a' })).toEqual(['list-3']);
    expect(await ids({ pool: 'other:openai', key: 'a' })).toEqual(['list-4']);
  });

  it('are of a user’s own address at most 500', async () => {
    const { ids } = start(() => Array.from({ length: 700 }, (_, index) => ({ id: `m${index}` })));
    const list = await ids({ isUsers: true });
    expect([list?.length, list?.at(-1)]).toEqual([500, 'm499']);
    expect(await ids({ isUsers: true })).toEqual(list);
    expect(await ids({ pool: 'provider', isUsers: false })).toHaveLength(700);
  });

  it('are of a user’s own address at most 128 KB', async () => {
    const { ids } = start(() =>
      Array.from({ length: 500 }, (_, index) => ({
        id: `${index}${'é'.repeat(250)}`,
        owned_by: 'é'.repeat(128),
      })),
    );
    const list = (await ids({ isUsers: true })) ?? [];
    expect(list.length).toBeLessThan(180);
    expect(list.length).toBeGreaterThan(150);
  });

  it('are not kept in memory once they are old, whoever asks next', async () => {
    const { ids, advance: pass } = start((asked) => [{ id: `${asked}` }, ...longModels(500)]);
    const before = await measureRetainedBytes();
    for (let pool = 0; pool < 100; pool += 1) await ids({ pool: `pool-${pool}` });
    expect((await measureRetainedBytes()) - before).toBeGreaterThan(100 * 100_000);
    pass(5 * MINUTE_MS);
    await ids({ pool: 'another' });
    expect((await measureRetainedBytes()) - before).toBeLessThan(10 * 100_000);
  });
});

/** Models of 256 characters each. */
const longModels = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ id: `${index}`.padEnd(256, 'm') }));
