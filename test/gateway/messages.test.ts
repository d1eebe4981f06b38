import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { anthropicKey } from '../support/surfaces.ts';
import { answer, startUpstream, type Upstream } from '../support/upstream.ts';
import { messageFrame } from '../support/upstream/message-frames.ts';

const SYSTEM_KEY = 'sk-ant-the-system-default-key';
const MESSAGES = '/v1/messages';
const COUNT = '/v1/messages/count_tokens';
const MODEL = 'claude-sonnet-5-5';
const hello = (more: object = {}, model = MODEL) => ({
  model,
  max_tokens: 100,
  messages: [{ role: 'user', content: 'Hello' }],
  ...more,
});

let gateway: Gateway;
let app: TestApp;
let anthropic: Upstream;
let system: Upstream;

beforeAll(async () => {
  anthropic = await startUpstream();
  gateway = await startGateway((doubles) => ({
    UPSTREAM_ANTHROPIC_URL: anthropic.url,
    DEFAULT_LLM_PROVIDER: 'anthropic',
    DEFAULT_LLM_BASE_URL: doubles.system.url,
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: 'claude-haiku-5-5',
    DEFAULT_LLM_MODELS: '*',
  }));
  ({ app, system } = gateway);
});
afterAll(async () => {
  await gateway.stop();
  await anthropic.stop();
});
afterEach(() => {
  gateway.reset();
  anthropic.reset();
});

async function signedIn(...keys: string[]): Promise<string> {
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  for (const key of keys) await addKey(app, session, { provider: 'anthropic', key });
  return session;
}

const post = (path: string, session: string, json: object, headers: Record<string, string> = {}) =>
  app.call(path, { method: 'POST', session, json, headers });

describe('a message on an own key', () => {
  it('passes as bytes to the provider’s Messages, with its key as x-api-key', async () => {
    const key = anthropicKey();
    const session = await signedIn(key);
    const body = hello({ temperature: 0, x_unknown: { a: [1] }, container: 'c', mcp_servers: [{}] });
    const response = await post(`${MESSAGES}?beta=true`, session, body);
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ type: 'message', content: [{ type: 'text' }] });
    const request = await anthropic.received(1);
    expect([request.path, request.body.toString()]).toEqual([MESSAGES, JSON.stringify(body)]);
    expect([request.headers['x-api-key'], request.headers.authorization]).toEqual([key, undefined]);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'x-ops-provider': 'anthropic',
      'x-ops-model': MODEL,
      'x-ops-key-scope': 'personal',
    });
  });

  it('has a chat completion of the same key go to the compatibility endpoint, with a bearer token', async () => {
    const key = anthropicKey();
    const session = await signedIn(key);
    expect((await post('/v1/chat/completions', session, hello())).status).toBe(200);
    const { path, headers } = await anthropic.received(1);
    expect([path, headers.authorization, headers['x-api-key']]).toEqual([
      '/v1/chat/completions',
      `Bearer ${key}`,
      undefined,
    ]);
    expect(headers['anthropic-version']).toBeUndefined();
  });

  it.each([
    [{}, '2023-06-01', undefined],
    [{ 'anthropic-version': '2024-01-01', 'anthropic-beta': 'a,b' }, '2024-01-01', 'a,b'],
    [{ 'anthropic-version': 'é' }, '2023-06-01', undefined],
  ])(
    'has the version and the betas of the client, or the default version: %j',
    async (headers, version, beta) => {
      const session = await signedIn(anthropicKey());
      await post(MESSAGES, session, hello(), headers);
      const received = (await anthropic.received(1)).headers;
      expect([received['anthropic-version'], received['anthropic-beta']]).toEqual([version, beta]);
    },
  );

  it('sends every header of the protocol, and no other header of the client', async () => {
    const session = await signedIn(anthropicKey());
    await post(MESSAGES, session, hello(), {
      'anthropic-new-feature': 'f',
      'x-app': 'cli',
      'x-stainless-os': 'Linux',
      'x-claude-code-session-id': 's',
    });
    const names = (await anthropic.received(1)).rawHeaders.map(([name]) => name.toLowerCase());
    expect(names.filter((name) => /^(x-|anthropic)/.test(name)).sort()).toEqual([
      'anthropic-new-feature',
      'anthropic-version',
      'x-api-key',
    ]);
  });

  it('forwards the provider’s error with its members, and tries the next key after a refused one', async () => {
    const [bad, good] = [anthropicKey(), anthropicKey()];
    const session = await signedIn(bad, good);
    const refusal = { type: 'error', error: { type: 'authentication_error', message: 'invalid x-api-key' } };
    anthropic.answerKey(bad, answer.reply({ status: 401, body: refusal }));
    for (let count = 0; count < 2; count += 1)
      expect((await post(MESSAGES, session, hello())).status).toBe(200);
    expect(anthropic.requests.filter(({ key }) => key === bad)).toHaveLength(1);
    const body = {
      type: 'error',
      error: { type: 'overloaded_error', message: 'own', details: [1] },
      request_id: 'r',
    };
    anthropic.answerAll(
      answer.reply({ status: 529, body, headers: { 'request-id': 'req_1', 'retry-after': '7' } }),
    );
    const response = await post(MESSAGES, session, hello());
    expect([response.status, await response.json()]).toEqual([529, body]);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'x-ops-error-source': 'upstream',
      'x-ops-upstream-request-id': 'req_1',
      'retry-after': '7',
    });
  });

  it('gets the first 401 when every key is refused, and then a 424, in Anthropic’s shape', async () => {
    const session = await signedIn(anthropicKey());
    anthropic.answerAll(answer.error(401, { message: 'invalid x-api-key', type: 'authentication_error' }));
    const [first, second] = [await post(MESSAGES, session, hello()), await post(MESSAGES, session, hello())];
    expect([first.status, first.headers.get('x-should-retry')]).toEqual([401, 'false']);
    expect([second.status, second.headers.get('x-should-retry')]).toEqual([424, 'false']);
    expect(await second.json()).toMatchObject({
      type: 'error',
      error: { type: 'invalid_request_error', skipped: [{ reason: 'set_aside' }] },
      request_id: second.headers.get('x-request-id'),
    });
  });

  it.each([
    ['no body', {}, 400, 'invalid_request_error'],
    ['a body that is not JSON', { body: '{' }, 400, 'invalid_request_error'],
    ['a field twice', { body: '{"max_tokens":1,"Max_Tokens":2}' }, 400, 'invalid_request_error'],
    ['a form', { body: 'a=1', headers: { 'content-type': 'text/plain' } }, 415, 'invalid_request_error'],
    ['33 MB', { body: `{"a":"${'x'.repeat(33 * 1024 * 1024)}"}` }, 413, 'request_too_large'],
  ])('with %s is an error in Anthropic’s shape', async (_name, options, status, type) => {
    const session = await signedIn();
    const headers = { 'content-type': 'application/json' };
    const response = await app.call(MESSAGES, { method: 'POST', session, headers, ...options });
    expect([response.status, await response.json()]).toMatchObject([
      status,
      { type: 'error', error: { type } },
    ]);
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
  });
});

describe('count_tokens', () => {
  it('goes to its own path, also for a body of 10 MB', async () => {
    const key = anthropicKey();
    const session = await signedIn(key);
    const { max_tokens: _maxTokens, ...body } = hello({ system: 'é'.repeat(5 * 1024 * 1024) });
    const response = await post(COUNT, session, body);
    expect([response.status, await response.json()]).toEqual([200, { input_tokens: 11 }]);
    const request = await anthropic.received(1);
    expect([request.path, request.headers['x-api-key']]).toEqual([COUNT, key]);
    expect(request.body.equals(Buffer.from(JSON.stringify(body)))).toBe(true);
  });

  it('passes no other response', async () => {
    const session = await signedIn(anthropicKey());
    anthropic.reply(answer.html(200));
    expect((await post(COUNT, session, hello())).status).toBe(502);
  });

  it('refuses what a message would be refused where the system pays', async () => {
    const session = await signedIn();
    const { max_tokens: _maxTokens, ...body } = hello();
    expect((await post(COUNT, session, { ...body, metadata: {} })).headers.get('x-ops-dropped')).toBe(
      'metadata',
    );
    expect((await post(COUNT, session, { ...body, tools: [{ type: 'web_search_20250305' }] })).status).toBe(
      400,
    );
    expect((await system.received(1)).path).toBe(COUNT);
    expect(system.requests).toHaveLength(1);
  });
});

describe('a message that the system pays for', () => {
  it('goes out with the system’s key, and without what can neither cost nor steer', async () => {
    const session = await signedIn();
    const metadata = { user_id: 'u' };
    const response = await post(MESSAGES, session, hello({ metadata, service_tier: 'auto' }), {
      'anthropic-version': '2023-06-01',
      'anthropic-new-feature': 'f',
    });
    expect([response.status, response.headers.get('x-ops-dropped')]).toEqual([200, 'metadata, service_tier']);
    const { headers, body } = await system.received(1);
    expect([headers['x-api-key'], headers['anthropic-new-feature']]).toEqual([SYSTEM_KEY, undefined]);
    expect(body.toString()).toBe(JSON.stringify(hello()));
  });

  it.each([
    { container: 'c' },
    { mcp_servers: [{ type: 'url', url: 'https://example.com', name: 'm' }] },
    { tools: [{ type: 'code_execution_20250825', name: 'code_execution' }] },
    { max_tokens: 1e9 },
    { api_base: 'https://example.com' },
  ])('is a 400 without a call when it can cost or steer: %j', async (fields) => {
    const response = await post(MESSAGES, await signedIn(), hello(fields));
    expect([response.status, await response.json()]).toMatchObject([400, { type: 'error' }]);
    expect(system.requests).toHaveLength(0);
  });
});

describe('a stream of a message', () => {
  const stream = async (frames: readonly (string | Uint8Array)[]) => {
    const session = await signedIn(anthropicKey());
    anthropic.reply(answer.steps(frames));
    return (await post(MESSAGES, session, hello({ stream: true }))).text();
  };
  const outcome = () => app.events('answer_passed').at(-1)?.['end'];
  const start = messageFrame({ type: 'message_start', message: { type: 'message', content: [] } });
  const ping = messageFrame({ type: 'ping' });
  const delta = messageFrame({ type: 'content_block_delta', index: 0, delta: { text: 'x' } });
  const reason = messageFrame({ type: 'message_delta', delta: { stop_reason: 'end_turn' } });
  const stop = messageFrame({ type: 'message_stop' });
  const error = messageFrame({ type: 'error', error: { type: 'overloaded_error', message: 'own' } });

  it.each([
    ['pings before its start', [ping, ping, start, delta, reason, stop]],
    [
      'unknown events and comments',
      [start, ': hi\n\n', messageFrame({ type: 'new_event', a: 1 }), delta, stop],
    ],
    ['unusual spacing', [start, 'event:message_stop\r\ndata:{"type" : "message_stop"}\r\n\r\n']],
  ])('passes byte for byte with %s', async (_name, frames) => {
    expect(await stream(frames)).toBe(frames.join(''));
    expect(outcome()).toBe('done');
  });

  it.each([
    ['nothing', []],
    ['pings', [ping]],
    ['its start', [start]],
    ['the reason to stop', [start, delta, reason]],
    ['half of its last event', [start, delta, reason, stop.slice(0, 30)]],
    ['the type of its last event', [start, delta, reason, 'event: message_stop\n']],
  ])('that ends after %s is incomplete and ends with an error event', async (_name, frames) => {
    const text = await stream(frames);
    const whole = frames.filter((frame) => frame.endsWith('\n\n')).join('');
    expect(
      text.startsWith(`${whole}event: error\ndata: {"type":"error","error":{"type":"api_error","message":"`),
    ).toBe(true);
    expect(text).toContain('The provider ended the stream before the answer was complete.');
    expect(text).not.toContain('message_stop"}');
    expect(outcome()).toBe('incomplete');
  });

  it('ends with its last event, of which the blank line can be missing', async () => {
    expect(await stream([start, stop.trimEnd()])).toBe(start + stop);
    expect(await stream([start, stop, delta, error])).toBe(start + stop);
    expect(outcome()).toBe('done');
  });

  it.each([
    ['first', [error, start, stop], ''],
    ['in the middle', [start, delta, error, stop], start + delta],
  ])('ends with the error event of the provider: %s', async (_name, frames, before) => {
    expect(await stream(frames)).toBe(before + error);
    expect(outcome()).toBe('failed');
  });

  it.each([
    ['without the type of the event', error.replace(/^event: error\n/, ''), error],
    [
      'with the shape of another protocol',
      'data: {"error":{"message":"own","type":"overloaded_error"}}\n\n',
      error,
    ],
    [
      'as a text',
      'event: error\ndata: own\n\n',
      messageFrame({ type: 'error', error: { type: 'api_error', message: 'own' } }),
    ],
  ])('ends with an error event that SDKs read, after one %s', async (_name, sent, received) => {
    expect(await stream([start, sent])).toBe(start + received);
    expect(outcome()).toBe('failed');
  });
});

describe('a model whose provider does not speak the protocol', () => {
  it('is a 400 that names the protocols of the provider, without a call', async () => {
    const session = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    for (const path of [MESSAGES, COUNT]) {
      const response = await post(path, session, hello({}, 'gpt-4o'));
      expect([response.status, response.headers.get('x-should-retry')]).toEqual([400, 'false']);
      expect(await response.json()).toMatchObject({
        type: 'error',
        error: {
          type: 'invalid_request_error',
          message: expect.stringContaining('OpenAI does not speak the Messages protocol.'),
          surfaces: ['chat', 'embeddings', 'responses'],
        },
      });
    }
    expect(gateway.openai.requests).toHaveLength(0);
  });

  it('is the same 400 while none of the keys can be used', async () => {
    const session = await signedIn();
    const id = await addKey(app, session, { provider: 'openai', key: openAiKey() });
    await app.call(`/api/v1/byok/keys/openai/${id}`, { method: 'PATCH', session, json: { enabled: false } });
    expect((await post(MESSAGES, session, hello({}, 'gpt-4o'))).status).toBe(400);
  });
});

describe('the base URL', () => {
  it('answers HEAD / with 200', async () => {
    expect((await app.call('/', { method: 'HEAD' })).status).toBe(200);
  });

  it('says at /v1 what it is, without a credential', async () => {
    const response = await app.call('/v1');
    expect([response.status, response.headers.get('content-type')]).toEqual([
      200,
      'application/json; charset=utf-8',
    ]);
    expect(await response.json()).toEqual({
      name: 'Ops Center',
      message: expect.stringContaining('base URL'),
    });
    expect((await app.call('/v1', { method: 'HEAD' })).status).toBe(200);
    expect((await app.call('/v1', { method: 'POST', json: {} })).status).toBe(405);
  });
});
