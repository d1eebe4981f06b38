import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import type { z } from 'zod';
import { UsageReceipt, UsageTotals, RequestPage } from '../../src/usage/schema.ts';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser } from '../support/stack.ts';
import { readEventStream } from '../support/stream.ts';
import { anthropicKey } from '../support/surfaces.ts';
import { bearer, createToken } from '../support/token.ts';
import { until } from '../support/until.ts';
import { answer, fault, type Upstream } from '../support/upstream.ts';

const SYSTEM_KEY = 'sk-or-the-system-default-key';
let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;

beforeAll(async () => {
  gateway = await startGateway(({ openai: double }) => ({
    UPSTREAM_ANTHROPIC_URL: double.url,
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: 'vendor/default-model',
    DEFAULT_LLM_MODELS: 'vendor/default-model',
    UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '5000',
  }));
  ({ app, openai, system } = gateway);
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

interface Caller {
  session: string;
  owner: string;
  key: string;
  keyId: string;
}

async function createCaller(): Promise<Caller> {
  const user = await createUser({ tier: 'starter' });
  const session = await app.signIn(user);
  const key = openAiKey();
  const keyId = await addKey(app, session, { provider: 'openai', key });
  return { session, owner: `user:${user.id}`, key, keyId };
}

const chat = ({ session }: Pick<Caller, 'session'>, more: object = {}, init: object = {}) =>
  app.call('/v1/chat/completions', {
    method: 'POST',
    session,
    json: { model: 'openai/gpt-4o', messages: [{ role: 'user', content: 'Hello' }], ...more },
    ...init,
  });

async function read<T>(schema: z.ZodType<T>, { session }: Pick<Caller, 'session'>, path: string): Promise<T> {
  const response = await app.call(`/api/v1/usage${path}`, { session });
  if (response.status !== 200) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  return schema.parse(await response.json());
}

const listRequests = (caller: Pick<Caller, 'session'>, query = '') =>
  read(RequestPage, caller, `/requests${query}`);

/** The receipts of all requests of a caller, the newest first, once there are so many. */
async function readReceipts(caller: Caller, count: number): Promise<UsageReceipt[]> {
  const page = await until(
    () => listRequests(caller, '?limit=200'),
    ({ data }) => data.length >= count,
  );
  return Promise.all(page.data.map(({ id }) => read(UsageReceipt, caller, `/requests/${id}`)));
}

async function readReceipt(caller: Caller): Promise<UsageReceipt> {
  const [receipt] = await readReceipts(caller, 1);
  if (receipt === undefined) throw new Error('the ledger has no request');
  return receipt;
}

async function queryOwners(url: string): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<{ owner: string }>(
      'SELECT owner FROM usage_requests UNION SELECT owner FROM usage_days',
    );
    return rows.map(({ owner }) => owner);
  } finally {
    await client.end();
  }
}

describe('an answer in the ledger', () => {
  it('names payer, key, models, tokens, cost and times', async () => {
    const ada = await createCaller();
    openai.reply(answer.completion({ model: 'gpt-4o-2024-08-06' }));
    const response = await chat(ada);
    const receipt = await readReceipt(ada);
    expect(receipt).toMatchObject({
      ...{ id: response.headers.get('x-request-id'), surface: 'chat', provider: 'openai', end: 'done' },
      ...{ requested_model: 'openai/gpt-4o', model: 'gpt-4o', served_model: 'gpt-4o-2024-08-06' },
      ...{ key_scope: 'personal', key_id: ada.keyId, token_id: null, endpoint_slug: null, status: 200 },
      ...{ input_tokens: 11, output_tokens: 7, cached_tokens: null, first_token_ms: null },
      ...{ cost_usd: '0.0000975', cost_source: 'prices', attempt_count: 1 },
    });
    expect(receipt.attempts).toMatchObject([
      { key_id: ada.keyId, status: 200, fault: null, model: 'gpt-4o', cost_usd: '0.0000975' },
    ]);
    expect(receipt.latency_ms).toBeGreaterThanOrEqual(receipt.attempts[0]?.duration_ms ?? Infinity);
  });

  const message = { type: 'message', id: 'msg_1', role: 'assistant', stop_reason: 'end_turn' };
  const vector = { object: 'embedding', index: 0, embedding: [0.5] };
  it.each<[string, string, object, object, object]>([
    [
      'messages',
      '/v1/messages',
      { model: 'claude-sonnet-5-5', max_tokens: 9, messages: [{ role: 'user', content: 'Hello' }] },
      { ...message, content: [{ type: 'text', text: 'a' }], usage: { input_tokens: 4, output_tokens: 6 } },
      { provider: 'anthropic', input_tokens: 4, output_tokens: 6 },
    ],
    [
      'messages',
      '/v1/messages/count_tokens',
      { model: 'claude-sonnet-5-5', messages: [{ role: 'user', content: 'Hello' }] },
      { input_tokens: 9 },
      { provider: 'anthropic', input_tokens: null, output_tokens: null },
    ],
    [
      'responses',
      '/v1/responses',
      { model: 'gpt-4o', input: 'Hello' },
      {
        ...{ id: 'resp_1', object: 'response', status: 'completed' },
        output: [{ type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'a' }] }],
        usage: { input_tokens: 5, output_tokens: 2 },
      },
      { provider: 'openai', input_tokens: 5, output_tokens: 2 },
    ],
    [
      'embeddings',
      '/v1/embeddings',
      { model: 'text-embedding-3-small', input: 'Hello' },
      { object: 'list', data: [vector], usage: { prompt_tokens: 3, total_tokens: 3 } },
      { provider: 'openai', input_tokens: 3, output_tokens: 0 },
    ],
  ])(
    'of the protocol %s at %s has its tokens, and the personal token',
    async (surface, path, json, body, row) => {
      const ada = await createCaller();
      await addKey(app, ada.session, { provider: 'anthropic', key: anthropicKey() });
      const token = await createToken(app, ada.session);
      openai.reply({ body });
      const response = await app.call(path, { method: 'POST', headers: bearer(token.token), json });
      expect([response.status, await response.json()]).toEqual([200, body]);
      expect(await readReceipt(ada)).toMatchObject({ surface, end: 'done', token_id: token.id, ...row });
    },
  );

  it('names the system as the payer and the cost that OpenRouter states', async () => {
    const user = await createUser({ tier: 'free' });
    const session = await app.signIn(user);
    system.reply({
      body: { choices: [{ message: { content: 'a' } }], usage: { prompt_tokens: 1, cost: 0.25 } },
    });
    await chat({ session }, { model: undefined });
    const { data } = await until(
      () => listRequests({ session }),
      (page) => page.data.length === 1,
    );
    expect(data).toMatchObject([
      {
        ...{ key_scope: 'system', key_id: null, provider: 'openrouter', requested_model: null },
        ...{ cost_usd: '0.25', cost_source: 'provider', input_tokens: 1, output_tokens: null },
      },
    ]);
  });

  it('has every attempt', async () => {
    const ada = await createCaller();
    const second = openAiKey();
    const secondId = await addKey(app, ada.session, { provider: 'openai', key: second });
    openai.answerKey(ada.key, answer.error(401));
    openai.answerKey(second, answer.error(401));
    await chat(ada);
    const { attempts, ...receipt } = await readReceipt(ada);
    expect(receipt).toMatchObject({ end: 'failed', status: 401, attempt_count: 2, cost_source: 'unknown' });
    expect(attempts.map(({ key_id, status, fault: cause }) => [key_id, status, cause]).sort()).toEqual(
      [ada.keyId, secondId].sort().map((id) => [id, 401, null]),
    );
  });

  it.each([
    ['a whole answer', answer.completion(), {}, { end: 'done', status: 200 }],
    ['a whole stream', answer.completion(), { stream: true }, { end: 'done', status: 200, output_tokens: 7 }],
    ['an error', answer.error(500), {}, { end: 'failed', status: 500, fault: null, output_tokens: null }],
    ['HTML', answer.html(), {}, { end: 'failed', status: null, fault: 'upstream_malformed' }],
    ['silence', fault.silent(), {}, { end: 'failed', status: null, fault: 'upstream_timeout' }],
    [
      'a stream that ends too early',
      answer.steps(['data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n']),
      { stream: true },
      { end: 'incomplete', status: 200, fault: 'upstream_incomplete', output_tokens: null },
    ],
    [
      'a stream that is reset',
      fault.resetInStream({ afterFrames: 3 }),
      { stream: true },
      { end: 'failed', status: 200, fault: 'stream_failed', output_tokens: null },
    ],
    [
      'an error in a stream',
      answer.steps([
        'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
        'data: {"error":{"message":"x"}}\n\n',
      ]),
      { stream: true },
      { end: 'failed', status: 200, fault: 'stream_failed' },
    ],
  ])('says how %s ended', async (_what, reply, more, expected) => {
    const ada = await createCaller();
    openai.reply(reply);
    const response = await chat(ada, more);
    await response.text().catch(() => undefined);
    const { fault: cause, ...members } = { fault: null, ...expected };
    const receipt = await readReceipt(ada);
    expect(receipt).toMatchObject(members);
    expect(receipt.attempts).toMatchObject([{ status: expected.status, fault: cause }]);
  });

  it.each([
    ['before the first byte', fault.silent(), {}, { status: null, first_token_ms: null }],
    ['in a stream', answer.held(3, new Promise(() => undefined)), { stream: true }, { status: 200 }],
  ])('says that the client left %s', async (_when, reply, more, expected) => {
    const ada = await createCaller();
    openai.reply(reply);
    const controller = new AbortController();
    const pending = chat(ada, more, { signal: controller.signal });
    await openai.received(1);
    if ('stream' in more) await readEventStream(await pending).first;
    controller.abort();
    await pending.catch(() => undefined);
    await openai.closed(0);
    const receipt = await readReceipt(ada);
    expect(receipt).toMatchObject({ end: 'cancelled', cost_usd: null, cost_source: 'unknown', ...expected });
    expect(receipt.attempts).toMatchObject([{ fault: 'cancelled' }]);
  });

  it('has no cost of a stream that was cut after a part of its tokens was reported', async () => {
    const ada = await createCaller();
    await addKey(app, ada.session, { provider: 'anthropic', key: anthropicKey() });
    const usage = { input_tokens: 4, output_tokens: 1 };
    const start = { type: 'message_start', message: { ...message, model: 'claude-sonnet-5-5', usage } };
    openai.reply(answer.steps([`event: message_start\ndata: ${JSON.stringify(start)}\n\n`]));
    const json = { model: 'claude-sonnet-5-5', max_tokens: 9, stream: true, messages: [] };
    await (await app.call('/v1/messages', { method: 'POST', session: ada.session, json })).text();
    expect(await readReceipt(ada)).toMatchObject({
      ...{ end: 'incomplete', input_tokens: 4, output_tokens: 1 },
      ...{ cost_usd: null, cost_source: 'unknown' },
    });
  });

  it('has the time to the first token of a stream', async () => {
    const ada = await createCaller();
    const gate = Promise.withResolvers<undefined>();
    openai.reply(answer.held(2, gate.promise));
    const stream = readEventStream(await chat(ada, { stream: true }));
    await stream.first;
    gate.resolve(undefined);
    await stream.events;
    const { first_token_ms: first, latency_ms: latency } = await readReceipt(ada);
    expect(first).toBeGreaterThan(0);
    expect(first).toBeLessThanOrEqual(latency);
  });
});

describe('the usage of a stream', () => {
  it.each([undefined, null, { include_usage: false }])(
    'is asked for with stream_options %j, and not sent to the client',
    async (streamOptions) => {
      const ada = await createCaller();
      const asked = {
        stream: true,
        ...(streamOptions === undefined ? {} : { stream_options: streamOptions }),
      };
      const events = await readEventStream(await chat(ada, asked)).events;
      expect((await openai.received(1)).json()['stream_options']).toEqual({ include_usage: true });
      expect(events.at(-1)).toBe('[DONE]');
      expect(events.filter((event) => event.includes('usage'))).toEqual([]);
      expect(await readReceipt(ada)).toMatchObject({ input_tokens: 11, output_tokens: 7 });
    },
  );

  it('reaches a client that asks for it', async () => {
    const ada = await createCaller();
    const options = { stream: true, stream_options: { include_usage: true } };
    const events = await readEventStream(await chat(ada, options)).events;
    expect(events.filter((event) => event.includes('"prompt_tokens":11'))).toHaveLength(1);
    expect(await readReceipt(ada)).toMatchObject({ input_tokens: 11, output_tokens: 7 });
  });

  it('is asked for where the system pays as well', async () => {
    const session = await app.signIn(await createUser({ tier: 'free' }));
    const asked = { model: undefined, stream: true, metadata: { a: 'b' } };
    const events = await readEventStream(await chat({ session }, asked)).events;
    const sent = (await system.received(1)).json();
    expect(sent).toMatchObject({ stream_options: { include_usage: true }, model: 'vendor/default-model' });
    expect(sent).not.toHaveProperty('metadata');
    expect(events.filter((event) => event.includes('usage'))).toEqual([]);
  });

  it('is asked for with the next key too, once', async () => {
    const ada = await createCaller();
    const second = openAiKey();
    await addKey(app, ada.session, { provider: 'openai', key: second });
    openai.reply(answer.error(401));
    const events = await readEventStream(await chat(ada, { stream: true })).events;
    expect(events.at(-1)).toBe('[DONE]');
    expect(events.filter((event) => event.includes('usage'))).toEqual([]);
    const bodies = openai.requests.map((request) => request.body.toString());
    expect(bodies).toHaveLength(2);
    expect(bodies[0]).toBe(bodies[1]);
  });
});

describe('400 interleaved requests of two users', () => {
  it('are rows equal to what the upstream received', async () => {
    const users = [await createCaller(), await createCaller()];
    for (const { key, owner } of users)
      openai.answerKey(key, (writer) => {
        const tokens = Number((writer.request.json()['user'] as string).slice(1));
        const usage = { prompt_tokens: tokens, completion_tokens: tokens % 7, total_tokens: tokens };
        return answer.completion({ usage, model: owner.slice(5) })(writer);
      });
    const sent = new Map<string, { owner: string; tokens: number }>();
    const send = async (number: number) => {
      const caller = users[number % 2] ?? (await createCaller());
      const response = await chat(caller, { user: `n${number}`, stream: number % 3 === 0 });
      await response.text();
      expect(response.status).toBe(200);
      sent.set(response.headers.get('x-request-id') ?? '', { owner: caller.owner, tokens: number });
    };
    let next = 0;
    const work = async () => {
      while (next < 400) await send(next++);
    };
    await Promise.all(Array.from({ length: 16 }, work));
    for (const caller of users) {
      const rows = [];
      await until(
        () => read(UsageTotals, caller, '?group=key'),
        ({ data }) => data[0]?.requests === 200,
      );
      for (let cursor: string | null = ''; cursor !== null;) {
        const page: RequestPage = await listRequests(caller, `?limit=90${cursor && `&cursor=${cursor}`}`);
        rows.push(...page.data);
        cursor = page.next_cursor;
      }
      expect(new Set(rows.map(({ id }) => id)).size).toBe(200);
      expect(rows).toHaveLength(200);
      for (const row of rows) {
        expect(sent.get(row.id)).toEqual({ owner: caller.owner, tokens: row.input_tokens });
        expect(row).toMatchObject({ key_id: caller.keyId, end: 'done', served_model: caller.owner.slice(5) });
      }
      const received = openai.requests.filter(({ key }) => key === caller.key);
      const numbers = received.map((request) => Number((request.json()['user'] as string).slice(1)));
      expect(rows.map((row) => row.input_tokens).sort()).toEqual(numbers.sort());
      const total = await read(UsageTotals, caller, '?group=model');
      expect(total.data).toMatchObject([
        {
          group: 'openai/gpt-4o',
          requests: 200,
          failed: 0,
          input_tokens: numbers.reduce((a, b) => a + b, 0),
        },
      ]);
    }
  }, 60_000);
});

describe('the ledger of a user', () => {
  it('has totals by day, provider, model, key and token', async () => {
    const ada = await createCaller();
    openai.reply(answer.completion(), answer.error(500), answer.completion());
    await chat(ada);
    await chat(ada);
    await chat(ada, { model: 'openai/unknown-model' });
    await readReceipts(ada, 3);
    const sums = { input_tokens: 11, cached_tokens: 0, output_tokens: 7, cost_usd: '0.0000975' };
    const gpt = { group: 'openai/gpt-4o', requests: 2, failed: 1, unpriced: 1, ...sums };
    const other = {
      ...sums,
      group: 'openai/unknown-model',
      requests: 1,
      failed: 0,
      unpriced: 1,
      cost_usd: null,
    };
    expect((await read(UsageTotals, ada, '?group=model')).data).toEqual([gpt, other]);
    const all = { requests: 3, failed: 1, unpriced: 2, input_tokens: 22, cost_usd: '0.0000975' };
    const today = new Date().toISOString().slice(0, 10);
    for (const [group, value] of [
      ['day', today],
      ['provider', 'openai'],
      ['key', ada.keyId],
      ['token', null],
    ])
      expect((await read(UsageTotals, ada, `?group=${String(group)}`)).data).toMatchObject([
        { ...all, group: value },
      ]);
    expect((await read(UsageTotals, ada, '?to=2020-01-01')).data).toEqual([]);
    expect((await listRequests(ada, '?to=2020-01-01')).data).toEqual([]);
  });

  it('counts requests that were refused before a call, without a row', async () => {
    const ada = await createCaller();
    for (let index = 0; index < 3; index += 1)
      expect((await chat(ada, { model: 'nobody/has-this' })).status).toBe(404);
    expect((await chat(ada, { stream: 'yes' })).status).toBe(400);
    const { refused, data } = await until(
      () => read(UsageTotals, ada, ''),
      (totals) => totals.refused.length === 2,
    );
    expect(refused).toEqual([
      { code: 'model_not_found', count: 3 },
      { code: 'validation_failed', count: 1 },
    ]);
    expect(data).toEqual([]);
    expect((await listRequests(ada)).data).toEqual([]);
    expect(openai.requests.filter(({ method }) => method === 'POST')).toEqual([]);
  });

  it('is not shown to another user', async () => {
    const [ada, bob] = [await createCaller(), await createCaller()];
    await chat(ada);
    const { id } = await readReceipt(ada);
    const response = await app.call(`/api/v1/usage/requests/${id}`, { session: bob.session });
    expect(response.status).toBe(404);
    expect(await listRequests(bob)).toEqual({ data: [], next_cursor: null });
    expect((await read(UsageTotals, bob, '')).data).toEqual([]);
  });

  it('is deleted with the user', async () => {
    const [ada, bob] = [await createCaller(), await createCaller()];
    for (const caller of [ada, bob]) {
      await chat(caller);
      await readReceipt(caller);
    }
    await (await adminClient()).users.del({ id: ada.owner.slice('user:'.length) });
    const owners = await until(
      () => queryOwners(app.ownerDatabaseUrl),
      (found) => !found.includes(ada.owner),
    );
    expect(owners).toContain(bob.owner);
  });

  it('is exported as CSV without formulas', async () => {
    const ada = await createCaller();
    const endpointModel = '=HYPERLINK("http://x")';
    openai.reply(answer.completion({ model: endpointModel }));
    await chat(ada);
    const { id } = await readReceipt(ada);
    const call = (path: string) =>
      app.call(`/api/v1/usage${path}`, { session: ada.session, headers: { accept: 'text/csv' } });
    const requests = await call('/requests');
    expect(requests.headers.get('content-type')).toBe('text/csv; charset=utf-8');
    const [head, line, ...rest] = (await requests.text()).split('\r\n');
    expect(head?.split(',').slice(0, 2)).toEqual(['"id"', '"surface"']);
    expect(line).toContain(`"${id}","chat","openai"`);
    expect(line).toContain(`"'=HYPERLINK(""http://x"")"`);
    expect(rest).toEqual(['']);
    expect((await (await call('?group=model')).text()).split('\r\n')[1]).toBe(
      '"openai/gpt-4o",1,11,0,7,"0.0000975",0,0',
    );
  });

  it.each(['?from=2026-02-30', '?from=x', '?group=user', '?from=2026-02-02&to=2026-02-01', '?x=1'])(
    'refuses %s',
    async (query) => {
      const ada = await createCaller();
      const response = await app.call(`/api/v1/usage${query}`, { session: ada.session });
      expect(response.status).toBe(400);
      expect(await response.json()).toMatchObject({ code: 'validation_failed' });
    },
  );
});
