import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { NO_USAGE } from '../../src/gateway/token-usage.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import type { AnsweredRequest } from '../../src/usage/record.ts';
import { createUsageWriter, MAX_PENDING } from '../../src/usage/usage-recorder.ts';
import { createUsageStore } from '../../src/usage/usage-store.ts';
import { createUsageData } from '../../src/usage/usage-data.ts';
import { blockDatabase, createDatabase } from '../support/database.ts';

const log = createLog('silent');
const prices = { findCost: () => '0.5' };
const TODAY = new Date().toISOString().slice(0, 10);
const RANGE = { from: '2020-01-01', to: TODAY };

let urls: Awaited<ReturnType<typeof createDatabase>>;
let databases: Database[];

beforeEach(async () => {
  urls = await createDatabase();
  databases = [];
});
afterEach(async () => {
  await Promise.all(databases.map((database) => database.close()));
});

/** The writer of one process, and what it has dropped. */
function createProcess() {
  const database = openDatabase({ url: urls.appUrl, max: 4, applicationName: 'test', log });
  databases.push(database);
  const store = createUsageStore(database);
  const state = { dropped: 0 };
  const writer = createUsageWriter({ store, prices, log, onDropped: (count) => (state.dropped += count) });
  return { database, store, writer, state };
}

let count = 0;
function createRequest(more: Partial<AnsweredRequest> = {}): AnsweredRequest {
  count += 1;
  return {
    ...{ requestId: `req_${count}`, owner: 'user:ada', tokenId: null, surface: 'chat', requestedModel: 'm' },
    ...{ end: 'done', startedAt: new Date(), latencyMs: 5, firstTokenMs: null },
    usage: { ...NO_USAGE, inputTokens: 3, outputTokens: 2 },
    attempts: [
      {
        ...{ keyId: 'k', keyScope: 'personal', provider: 'openai', endpointSlug: null, model: 'm' },
        ...{ status: 200, fault: null, startedAt: new Date(), durationMs: 4 },
      },
    ],
    ...more,
  };
}

async function asOwner(text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: urls.ownerUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}
const countRows = async () => (await asOwner('SELECT id FROM usage_requests')).length;
const sumTotals = async () =>
  (await asOwner('SELECT coalesce(sum(requests), 0)::integer AS sum FROM usage_days'))[0]?.['sum'];

describe('writing the ledger', () => {
  it('stores all requests of several batches once, with their totals', async () => {
    const { writer, store } = createProcess();
    for (let index = 0; index < 1_234; index += 1) writer.record(createRequest());
    await writer.flush();
    await writer.flush();
    expect(await countRows()).toBe(1_234);
    expect(await store.listTotals('user:ada', 'day', RANGE)).toEqual([
      {
        ...{ group: TODAY, requests: 1_234, failed: 0, unpriced: 0, cost_usd: '617' },
        ...{ input_tokens: 3_702, cached_tokens: 0, output_tokens: 2_468 },
      },
    ]);
  });

  it('by two processes at once adds up, in any order of owners and models', async () => {
    const processes = [createProcess(), createProcess()];
    const owners = Array.from({ length: 20 }, (_, index) => `user:${index}` as const);
    for (const [number, { writer }] of processes.entries())
      for (let index = 0; index < 1_000; index += 1) {
        const at = number === 0 ? index : 999 - index;
        writer.record(createRequest({ owner: owners[at % 20] ?? 'user:none' }));
      }
    await Promise.all(processes.map(({ writer }) => writer.flush()));
    expect(await countRows()).toBe(2_000);
    expect(await sumTotals()).toBe(2_000);
  });

  it('that is repeated, since its end is not known, adds nothing', async () => {
    const { writer, store } = createProcess();
    const request = createRequest();
    for (let index = 0; index < 2; index += 1) {
      writer.record(request);
      await writer.flush();
    }
    const refusal = { id: 'r', owner: 'user:ada', code: 'rate_limited', minute: new Date() } as const;
    for (const number of [2, 5, 5, 3]) await store.writeRefusals([{ ...refusal, count: number }]);
    expect([await countRows(), await sumTotals()]).toEqual([1, 1]);
    expect(await store.listRefusals('user:ada', RANGE)).toEqual([{ code: 'rate_limited', count: 5 }]);
  });

  it('keeps what the database does not accept while it is away, and stores it later', async () => {
    const { writer, state } = createProcess();
    const unblock = await blockDatabase(urls.appUrl);
    for (let index = 0; index < 700; index += 1) writer.record(createRequest());
    await expect(writer.flush()).rejects.toMatchObject({ code: 'database_unavailable' });
    await expect(writer.flush()).rejects.toMatchObject({ code: 'database_unavailable' });
    await unblock();
    await writer.flush();
    expect([await countRows(), state.dropped]).toEqual([700, 0]);
  });

  it('drops and counts requests beyond a bound', async () => {
    const { writer, state } = createProcess();
    const unblock = await blockDatabase(urls.appUrl);
    for (let index = 0; index < MAX_PENDING + 7; index += 1) writer.record(createRequest());
    await expect(writer.flush()).rejects.toThrow();
    expect(state.dropped).toBe(7);
    await unblock();
    await writer.flush();
    expect(await countRows()).toBe(MAX_PENDING);
  });

  it('drops a request that the database refuses, and no other', async () => {
    const { writer, state } = createProcess();
    for (let index = 0; index < 40; index += 1)
      writer.record(createRequest(index === 17 ? { surface: 'a\u0000b' } : {}));
    await writer.flush();
    expect([await countRows(), state.dropped]).toEqual([39, 1]);
  });

  it('begins without a call, and a stop stores the rest', async () => {
    const { writer } = createProcess();
    await writer.start();
    writer.record(createRequest());
    writer.recordRefusal({ owner: 'user:ada', code: 'rate_limited' });
    await writer.stop();
    expect(await countRows()).toBe(1);
    expect(await asOwner('SELECT code, count::integer FROM usage_refusals')).toEqual([
      { code: 'rate_limited', count: 1 },
    ]);
  });

  it('counts as dropped what a stop cannot store', async () => {
    const { writer, state } = createProcess();
    await writer.start();
    const unblock = await blockDatabase(urls.appUrl);
    for (let index = 0; index < 3; index += 1) writer.record(createRequest());
    await writer.stop();
    await unblock();
    expect(state.dropped).toBe(3);
  });
});

describe('a clock that goes back by an hour', () => {
  it('hides and repeats no request in the pages of a list', async () => {
    const { writer, store } = createProcess();
    const now = Date.now();
    for (const hours of [-1, 0, -1, -1]) {
      writer.record(createRequest({ startedAt: new Date(now + hours * 3_600_000) }));
      await writer.flush();
    }
    const seen: string[] = [];
    for (let cursor: string | undefined; ;) {
      const page = { limit: 1, ...(cursor === undefined ? {} : { cursor }) };
      const [row, next] = await store.listRequests('user:ada', page, RANGE);
      if (row !== undefined) seen.push(row.id);
      if (next === undefined) break;
      cursor = row?.number;
    }
    expect(seen).toEqual(Array.from({ length: 4 }, (_, index) => `req_${count - index}`));
  });
});

describe('the database', () => {
  it('lets the app’s role see, add and change nothing of others', async () => {
    const { writer, database, store } = createProcess();
    writer.record(createRequest());
    writer.record(createRequest({ owner: 'user:bob' }));
    await writer.flush();
    const run = (text: string) => database.withOwner('user:ada', (sql) => sql.run(text));
    for (const table of ['usage_requests', 'usage_days']) {
      expect(await run(`SELECT FROM ${table}`)).toBe(1);
      expect(await database.run(`SELECT FROM ${table}`)).toBe(0);
      await expect(run(`UPDATE ${table} SET model = 'x'`)).rejects.toMatchObject({ code: '42501' });
      await expect(run(`INSERT INTO ${table} (owner) VALUES ('user:ada')`)).rejects.toMatchObject({
        code: '42501',
      });
      expect(await run(`DELETE FROM ${table}`)).toBe(1);
    }
    expect(await store.listTotals('user:bob', 'day', RANGE)).toHaveLength(1);
  });

  it('keeps the totals of requests that are pruned, and refuses to prune recent ones', async () => {
    const { writer, store } = createProcess();
    const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000);
    for (const days of [40, 31, 29, 0]) writer.record(createRequest({ startedAt: daysAgo(days) }));
    await writer.flush();
    const refusal = {
      id: 'r',
      owner: 'user:ada',
      code: 'rate_limited',
      minute: daysAgo(31),
      count: 1,
    } as const;
    await store.writeRefusals([refusal]);
    await store.prune(30);
    expect(await countRows()).toBe(2);
    expect(await asOwner('SELECT FROM usage_refusals')).toHaveLength(0);
    expect(await sumTotals()).toBe(4);
    for (const days of [0, -1]) await expect(store.prune(days)).rejects.toMatchObject({ code: '22023' });
  });

  it('removes all rows of one owner', async () => {
    const { writer, database } = createProcess();
    for (const owner of ['user:ada', 'user:bob'] as const) {
      writer.record(createRequest({ owner }));
      writer.recordRefusal({ owner, code: 'rate_limited' });
    }
    await writer.flush();
    const data = createUsageData(database);
    expect(await data.listOwners()).toEqual(['user:ada', 'user:bob']);
    await data.remove('user:ada');
    expect(await data.listOwners()).toEqual(['user:bob']);
    for (const table of ['usage_requests', 'usage_days', 'usage_refusals'])
      expect(await asOwner(`SELECT owner FROM ${table}`)).toEqual([{ owner: 'user:bob' }]);
  });
});
