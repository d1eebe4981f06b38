import { connect } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

const PATH = '/v1/embeddings';
const hello = { model: 'text-embedding-3-small', input: 'Hello' };
const list = {
  object: 'list',
  data: [{ object: 'embedding', index: 0, embedding: [0.25, -1e-7] }],
  model: 'text-embedding-3-small',
  usage: { prompt_tokens: 1, total_tokens: 1 },
};

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;
let session: string;
let key: string;
let keyId: string;
/** A user without keys: the system pays. */
let other: string;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    UPSTREAM_CONNECT_TIMEOUT_MS: '500',
    UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '700',
    UPSTREAM_IDLE_TIMEOUT_MS: '700',
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODELS: 'vendor/embed-small',
  }));
  ({ app, openai, system } = gateway);
  session = await app.signIn(await createUser({ tier: 'starter' }));
  key = openAiKey();
  keyId = await addKey(app, session, { provider: 'openai', key });
  other = await app.signIn(await createUser({ tier: 'starter' }));
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

const embed = (json: object, signal?: AbortSignal) =>
  app.call(PATH, { method: 'POST', session, json, ...(signal ? { signal } : {}) });
const embedFromSystem = (json: object) => app.call(PATH, { method: 'POST', session: other, json });

describe('embeddings', () => {
  it('pass as bytes to the path of the provider, with the model replaced, and back', async () => {
    const body =
      '{"input" : ["a\\u0062", [1,2]],"model":"openai/text-embedding-3-small" , "x_unknown":1.0e0}';
    const text = `\n${JSON.stringify(list, null, 2)}`;
    openai.reply(answer.reply({ body: text, headers: { 'openai-processing-ms': '5' } }));
    const headers = { 'content-type': 'application/json' };
    const response = await app.call(PATH, { method: 'POST', session, body, headers });
    expect(await response.text()).toBe(text);
    const request = await openai.received(1);
    expect([request.path, request.key]).toEqual(['/v1/embeddings', key]);
    expect(request.body.toString()).toBe(body.replace('openai/text', 'text'));
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'content-type': 'application/json',
      'openai-processing-ms': '5',
      'x-ops-provider': 'openai',
      'x-ops-model': 'text-embedding-3-small',
      'x-ops-key-scope': 'personal',
      'x-ops-key-id': keyId,
    });
    expect(app.events('answer_passed').at(-1)).toMatchObject({ status: 200, end: 'whole' });
  });

  it('are paid by the system for its models, with the fields of a shared payer only', async () => {
    system.reply(answer.reply({ body: list }));
    const paid = await embedFromSystem({ model: 'vendor/embed-small', input: 'Hello', dimensions: 8 });
    expect([paid.status, paid.headers.get('x-ops-key-scope')]).toEqual([200, 'system']);
    expect((await system.received(1)).path).toBe('/v1/embeddings');
    const refused = await embedFromSystem({ model: 'vendor/embed-small', input: 'x', stream: true });
    expect([refused.status, await refused.json()]).toMatchObject([
      400,
      { error: { code: 'field_not_allowed', param: 'stream' } },
    ]);
    expect(system.requests).toHaveLength(1);
  });

  it('name similar models of the caller for a model that no list has', async () => {
    const response = await embedFromSystem({ model: 'vendor/embed-smal', input: 'Hello' });
    expect([response.status, await response.json()]).toMatchObject([
      404,
      { error: { code: 'model_not_found', candidates: ['openrouter/vendor/embed-small'] } },
    ]);
    expect(response.headers.get('x-should-retry')).toBe('false');
  });

  it('are never a stream: "stream" is the provider’s to refuse, and a stream is no answer', async () => {
    openai.reply(answer.error(400, { message: 'Unknown parameter: stream' }));
    const refused = await embed({ ...hello, stream: true });
    expect(refused.status).toBe(400);
    expect((await openai.received(1)).headers.accept).toBe('application/json');
    openai.reply(answer.endlessStream({ everyMs: 5 }));
    const response = await embed({ ...hello, stream: true });
    expect([response.status, await response.json()]).toMatchObject([
      502,
      { error: { code: 'upstream_malformed' } },
    ]);
    await openai.closed(1);
  });

  it.each(['float', 'base64'])('of 20 MB as %s pass byte for byte', async (format) => {
    const numbers = Array.from({ length: 1_536 }, (_, index) => Math.sin(index) / 10);
    const embedding =
      format === 'float' ? numbers : Buffer.from(new Float32Array(numbers).buffer).toString('base64');
    const count = Math.ceil((20 * 1024 * 1024) / JSON.stringify(embedding).length);
    const data = Array.from({ length: count }, (_, index) => ({ object: 'embedding', index, embedding }));
    const body = Buffer.from(JSON.stringify({ ...list, data }));
    openai.reply(answer.reply({ body }));
    const response = await embed({ ...hello, encoding_format: format });
    expect(response.status).toBe(200);
    expect(Buffer.from(await response.arrayBuffer()).equals(body)).toBe(true);
  });

  it('of an endpoint that a user brought have at most 8 MB', async () => {
    const endpoint = await startUpstream();
    try {
      await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: endpoint.url });
      const vectors = Array.from({ length: 300 }, () => 'A'.repeat(32_000));
      const data = vectors.map((embedding, index) => ({ index, embedding }));
      endpoint.reply(answer.reply({ body: { data } }), answer.reply({ body: { data: data.slice(0, 200) } }));
      const statuses = [
        await embed({ ...hello, model: 'custom/m' }),
        await embed({ ...hello, model: 'custom/m' }),
      ];
      expect(statuses.map(({ status }) => status)).toEqual([502, 200]);
      expect(endpoint.requests.map(({ path }) => path)).toEqual(['/v1/embeddings', '/v1/embeddings']);
    } finally {
      await app.call('/api/v1/byok/keys/custom', { method: 'DELETE', session });
      await endpoint.stop();
    }
  });
});

const gzipped = answer.reply({
  headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
  body: gzipSync(JSON.stringify(list)),
});

describe('an upstream of embeddings', () => {
  it.each<[string, Answer, number, string]>([
    ['HTML with 200', answer.html(200), 502, 'upstream_malformed'],
    ['a compressed response', gzipped, 502, 'upstream_malformed'],
    ['a redirect', answer.redirect(307, 'http://127.0.0.1:1/v1/embeddings'), 502, 'upstream_malformed'],
    ['an endless response', fault.endlessJson(), 502, 'upstream_malformed'],
    ['an event stream', fault.silentAfterHeaders(), 502, 'upstream_malformed'],
    [
      'JSON that is cut short',
      answer.reply({ body: '{"object":"list","data":[{"embedding":[0.1,' }),
      502,
      'upstream_malformed',
    ],
    ['headers of a megabyte', fault.hugeHeaders(), 502, 'upstream_unreachable'],
    ['silence', fault.silent(), 504, 'upstream_timeout'],
    ['endless headers', fault.slowHeaders(), 504, 'upstream_timeout'],
    ['headers, then silence', fault.silentAfterHeaders('application/json'), 504, 'upstream_timeout'],
    ['a reset before the body was read', fault.resetBeforeBody(), 502, 'upstream_unreachable'],
    ['a reset before the headers', fault.resetBeforeHeaders(), 502, 'upstream_unreachable'],
    ['a reset in the headers', fault.resetInHeaders(), 502, 'upstream_unreachable'],
    ['a reset after the headers', fault.resetAfterHeaders('application/json'), 502, 'upstream_unreachable'],
    ['a reset in the body', fault.resetInBody(), 502, 'upstream_unreachable'],
    ['a body shorter than declared', fault.shortBody(), 502, 'upstream_unreachable'],
    ['contradicting framing headers', fault.doubleFraming(), 502, 'upstream_unreachable'],
    ['another protocol than HTTP', fault.raw('SSH-2.0-OpenSSH_9.2\r\n'), 502, 'upstream_unreachable'],
  ])('with %s is an error in the protocol’s shape', async (_name, upstreamAnswer, status, code) => {
    openai.reply(upstreamAnswer);
    const logged = app.events('answer_passed').length;
    const response = await embed(hello);
    expect([response.status, await response.json()]).toMatchObject([
      status,
      { error: { code, type: 'server_error' } },
    ]);
    const receipt = { status: null, end: 'failed', provider: 'openai', key_id: keyId, attempts: 1 };
    expect(app.events('answer_passed').slice(logged)).toMatchObject([receipt]);
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(response.headers.get('x-should-retry')).toBe('false');
    await openai.closed(0);
  });

  it.each([400, 429, 500])('with an error of its own (%i) keeps it', async (status) => {
    openai.reply(answer.error(status, { message: `the key ${key} is odd` }));
    const response = await embed(hello);
    expect([response.status, await response.json()]).toMatchObject([
      status,
      { error: { message: 'the key *** is odd' } },
    ]);
    expect(response.headers.get('x-ops-error-source')).toBe('upstream');
  });

  it('with an error beside vectors keeps both, and reveals no secret', async () => {
    openai.reply(answer.reply({ body: { ...list, error: { message: `odd: ${key}` } } }));
    expect(await (await embed(hello)).json()).toEqual({ ...list, error: { message: 'odd: ***' } });
  });

  it('at a private address is not shown unless it follows the protocol', async () => {
    const inside = await startUpstream();
    try {
      await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: inside.url });
      for (const body of [
        { secret: 'inside' },
        { data: ['inside'] },
        { data: [{ embedding: 'the inside', index: 0 }] },
        { data: [{ embedding: ['inside'], index: 0 }] },
        { data: [], secret: 'inside' },
        { data: [{ embedding: [1], name: 'inside' }] },
      ]) {
        inside.reply(answer.reply({ body }));
        const response = await embed({ ...hello, model: 'custom/m' });
        expect(response.status).toBe(502);
        expect(await response.text()).not.toContain('inside');
      }
      inside.reply(answer.reply({ body: list }));
      expect(await (await embed({ ...hello, model: 'custom/m' })).json()).toEqual(list);
    } finally {
      await app.call('/api/v1/byok/keys/custom', { method: 'DELETE', session });
      await inside.stop();
    }
  });
});

const ROUNDS = 5;
const MAX_DELAY_MS = 50;

describe('a client of embeddings that disconnects', () => {
  it.each<[string, Answer]>([
    ['while the upstream does not read the request', fault.readsNoBody()],
    ['while the upstream does not respond', fault.silent()],
    ['in the headers of the response', fault.slowHeaders()],
    ['after the headers of the response', fault.silentAfterHeaders('application/json')],
    ['in the middle of the response', fault.slowBody()],
  ])('%s ends the upstream request within 50 ms', async (_name, upstreamAnswer) => {
    const delays: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      openai.reset();
      openai.reply(upstreamAnswer);
      const client = new AbortController();
      const response = embed(hello, client.signal);
      response.catch(() => undefined);
      await openai.received(1);
      const abortedAtMs = performance.now();
      client.abort();
      delays.push((await openai.closed(0)) - abortedAtMs);
    }
    // Other tests use the processors as well: one round at least is not delayed by them.
    expect(Math.min(...delays)).toBeLessThan(MAX_DELAY_MS);
  });

  it('in the middle of its own body calls no upstream', async () => {
    const { hostname, port } = new URL(app.url);
    const client = connect(Number(port), hostname);
    const head = `POST ${PATH} HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\n`;
    const gone = app.events('client_gone').length;
    client.write(`${head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"model":`);
    await new Promise((resolve) => client.once('connect', resolve));
    client.destroy();
    // A request that comes later is served, and is the first one at the upstream.
    openai.reply(answer.reply({ body: list }));
    expect((await embed(hello)).status).toBe(200);
    expect(openai.requests).toHaveLength(1);
    expect(app.events('client_gone').length).toBeGreaterThanOrEqual(gone);
  });
});
