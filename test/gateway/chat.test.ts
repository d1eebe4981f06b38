import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';
import {
  ALLOWED_HEADERS,
  answer,
  fault,
  HOSTILE_HEADERS,
  startUpstream,
  type Upstream,
} from '../support/upstream.ts';

const SYSTEM_KEY = 'sk-or-the-system-default-key';
const CHAT = '/v1/chat/completions';
const ANTHROPIC_HEADERS = {
  'anthropic-version': '2023-06-01',
  'anthropic-beta': 'b',
  'anthropic-new-feature': 'f',
};
const hello = (model: string | undefined, more: object = {}) => ({
  ...(model === undefined ? {} : { model }),
  messages: [{ role: 'user', content: 'Hello' }],
  ...more,
});

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;

beforeAll(async () => {
  gateway = await startGateway((doubles) => ({
    UPSTREAM_ANTHROPIC_URL: doubles.openai.url,
    UPSTREAM_TOGETHER_URL: doubles.openai.url,
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: 'vendor/default-model',
    DEFAULT_LLM_MODELS: 'gpt-4o,vendor/default-model',
  }));
  ({ app, openai, system } = gateway);
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

async function signedIn(tier: 'free' | 'starter' = 'starter'): Promise<{ session: string; user: TestUser }> {
  const user = await createUser({ tier });
  return { user, session: await app.signIn(user) };
}

const chat = (session: string, json: object, headers: Record<string, string> = {}) =>
  app.call(CHAT, { method: 'POST', session, json, headers });

describe('routing and payer', () => {
  it('sends a request to the key’s provider with exactly that key and names both in the response headers', async () => {
    const { session, user } = await signedIn();
    const key = openAiKey();
    const id = await addKey(app, session, { provider: 'openai', key });
    const response = await chat(session, hello('openai/gpt-4o', { temperature: 0, x_unknown: { a: [1] } }));
    expect(response.status).toBe(200);
    const request = await openai.received(1);
    expect(request.key).toBe(key);
    expect(request.body.toString()).toBe(
      JSON.stringify(hello('gpt-4o', { temperature: 0, x_unknown: { a: [1] } })),
    );
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'x-ops-provider': 'openai',
      'x-ops-model': 'gpt-4o',
      'x-ops-key-scope': 'personal',
      'x-ops-key-id': id,
      'x-ops-attempts': '1',
    });
    expect(response.headers.has('x-ops-reason')).toBe(false);
    expect(system.requests).toHaveLength(0);
    expect(app.events('request_routing').at(-1)).toMatchObject({
      user: user.id,
      provider: 'openai',
      model: 'gpt-4o',
      byok: true,
      key_scope: 'personal',
    });
  });

  it('uses the system key when the user has none and names the reason', async () => {
    const { session } = await signedIn();
    const response = await chat(session, hello(undefined));
    expect(response.status).toBe(200);
    expect((await system.received(1)).key).toBe(SYSTEM_KEY);
    expect((await system.received(1)).json()['model']).toBe('vendor/default-model');
    expect(Object.fromEntries(response.headers)).toMatchObject({
      'x-ops-provider': 'openrouter',
      'x-ops-key-scope': 'system',
      'x-ops-reason': 'no_key',
    });
    expect(response.headers.has('x-ops-key-id')).toBe(false);
    expect(app.events('system_fallback').at(-1)).toMatchObject({ reason: 'no_key' });
  });

  it('skips the pool below Starter, names the reason, and uses it again when the tier is restored', async () => {
    const { session, user } = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    await setTier(session, user, 'trial');
    const below = await chat(session, hello('gpt-4o'));
    expect(below.headers.get('x-ops-key-scope')).toBe('system');
    expect(below.headers.get('x-ops-reason')).toBe('tier_required');
    await setTier(session, user, 'starter');
    expect((await chat(session, hello('gpt-4o'))).headers.get('x-ops-key-scope')).toBe('personal');
  });

  it('rotates over the keys of a pool', async () => {
    const { session } = await signedIn();
    const keys = [openAiKey(), openAiKey(), openAiKey()];
    for (const key of keys) await addKey(app, session, { provider: 'openai', key });
    for (let count = 0; count < 6; count += 1) await chat(session, hello('gpt-4o'));
    const used = openai.requests.map((request) => request.key);
    expect(used.slice(0, 3).sort()).toEqual([...keys].sort());
    expect(used.slice(3)).toEqual(used.slice(0, 3));
  });

  it('previews the decision without advancing the rotation or calling an upstream', async () => {
    const { session } = await signedIn();
    for (const label of ['a', 'b'])
      await addKey(app, session, { provider: 'openai', key: openAiKey(), label });
    const explain = async () =>
      (await app.call('/api/v1/byok/route?model=openai/gpt-4o', { session })).json();
    const first = (await explain()) as { key_id: string };
    expect(await explain()).toEqual(first);
    expect(first).toMatchObject({
      provider: 'openai',
      model: 'gpt-4o',
      key_scope: 'personal',
      reason: null,
      skipped: [],
    });
    expect(openai.requests).toHaveLength(0);
    expect((await chat(session, hello('gpt-4o'))).headers.get('x-ops-key-id')).toBe(first.key_id);
  });

  it('refuses models that the system does not pay for', async () => {
    const { session } = await signedIn('free');
    const response = await chat(session, hello('vendor/expensive'));
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ error: { code: 'model_not_found' } });
    expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
    expect(system.requests).toHaveLength(0);
  });

  it('sends a custom key to the endpoint that was encrypted with it', async () => {
    const custom = await startUpstream();
    try {
      const { session } = await signedIn();
      await addKey(app, session, { provider: 'custom', key: 'my-own-key', endpoint: custom.url });
      const response = await chat(
        session,
        hello('custom/some/model', { api_key: 'allowed for a custom endpoint' }),
      );
      expect(response.status).toBe(200);
      const request = await custom.received(1);
      expect(request.key).toBe('my-own-key');
      expect(request.json()['model']).toBe('some/model');
      expect(request.headers['x-ops-hop']).toEqual(expect.any(String));
    } finally {
      await custom.stop();
    }
  });

  it('sends no authorization to an endpoint that needs no key', async () => {
    const custom = await startUpstream();
    try {
      const { session } = await signedIn();
      await addKey(app, session, { provider: 'custom', key: '', endpoint: custom.url });
      expect((await chat(session, hello('custom/m'))).status).toBe(200);
      expect((await custom.received(1)).headers.authorization).toBeUndefined();
    } finally {
      await custom.stop();
    }
  });

  it('refuses a request that loops back to the gateway', async () => {
    const { session } = await signedIn();
    const custom = await startUpstream();
    await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: custom.url });
    await chat(session, hello('custom/m'));
    const loopHeader = String((await custom.received(1)).headers['x-ops-hop']);
    await custom.stop();
    const response = await chat(session, hello('custom/m'), { 'x-ops-hop': loopHeader });
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([508, 'false']);
    const list = await app.call('/v1/models', { session, headers: { 'x-ops-hop': loopHeader } });
    expect(list.status).toBe(508);
    expect(await response.json()).toMatchObject({ error: { code: 'loop_detected' } });
  });
});

describe('a key that the provider refuses', () => {
  it('is put in cooldown, the next key serves, and the headers count both attempts', async () => {
    const { session } = await signedIn();
    const bad = openAiKey();
    const good = openAiKey();
    const badId = await addKey(app, session, { provider: 'openai', key: bad });
    const goodId = await addKey(app, session, { provider: 'openai', key: good });
    openai.answerKey(bad, answer.error(401));
    const answers = [await chat(session, hello('gpt-4o')), await chat(session, hello('gpt-4o'))];
    for (const response of answers) {
      expect(response.status).toBe(200);
      expect(response.headers.get('x-ops-key-id')).toBe(goodId);
    }
    const tried = openai.requests.filter((request) => request.key === bad);
    expect(tried).toHaveLength(1);
    expect(answers.map((response) => response.headers.get('x-ops-attempts')).sort()).toEqual(['1', '2']);
    const keys = (await (await app.call('/api/v1/byok/keys', { session })).json()) as {
      id: string;
      test_status: string;
      last_used: string | null;
    }[];
    expect(keys.find(({ id }) => id === badId)).toMatchObject({ test_status: 'invalid', last_used: null });
    const route = await (await app.call('/api/v1/byok/route?model=gpt-4o', { session })).json();
    expect(route).toMatchObject({ key_id: goodId, skipped: [{ key_id: badId, reason: 'set_aside' }] });
  });

  it('gets the first 401 when every key is refused, then no_usable_key, and never the system key', async () => {
    const { session } = await signedIn();
    const keys = [openAiKey(), openAiKey()];
    for (const key of keys) await addKey(app, session, { provider: 'openai', key });
    for (const [index, key] of keys.entries())
      openai.answerKey(
        key,
        answer.reply({ status: 401, body: { error: { message: `no ${index}`, code: 'invalid_api_key' } } }),
      );
    const first = await chat(session, hello('gpt-4o'));
    expect(first.status).toBe(401);
    expect(first.headers.get('x-ops-error-source')).toBe('upstream');
    expect(first.headers.get('x-ops-attempts')).toBe('2');
    expect(first.headers.get('x-should-retry')).toBe('false');
    const firstTried = keys.indexOf(String(openai.requests[0]?.key));
    expect(await first.json()).toEqual({ error: { message: `no ${firstTried}`, code: 'invalid_api_key' } });
    const second = await chat(session, hello('gpt-4o'));
    expect(second.status).toBe(424);
    expect(await second.json()).toMatchObject({
      error: { code: 'no_usable_key', skipped: [{ reason: 'set_aside' }, { reason: 'set_aside' }] },
    });
    expect(openai.requests).toHaveLength(2);
    expect(system.requests).toHaveLength(0);
  });

  it.each([400, 402, 403, 404, 429, 500, 503, 529])(
    'forwards a %s unchanged and tries no other key',
    async (status) => {
      const { session } = await signedIn();
      for (const key of [openAiKey(), openAiKey()]) await addKey(app, session, { provider: 'openai', key });
      const body = {
        error: { message: `the provider's own ${status}`, type: 'x', param: null, code: 'own', extra: [1] },
      };
      openai.answerAll(answer.reply({ status, body, headers: { 'retry-after': '7' } }));
      const response = await chat(session, hello('gpt-4o'));
      expect(response.status).toBe(status);
      expect(await response.text()).toBe(JSON.stringify(body));
      expect(response.headers.get('retry-after')).toBe('7');
      expect(response.headers.get('x-ops-error-source')).toBe('upstream');
      expect(openai.requests).toHaveLength(1);
    },
  );
});

describe('headers and bodies', () => {
  it('forwards only the allowed client headers to the upstream', async () => {
    const { session } = await signedIn();
    const key = openAiKey();
    await addKey(app, session, { provider: 'openai', key });
    await chat(session, hello('gpt-4o'), {
      'openai-organization': 'org-mine',
      'openai-project': 'proj-mine',
      ...ANTHROPIC_HEADERS,
      'anthropic-latin': 'é',
      [`anthropic-${'a'.repeat(65)}`]: 'long',
      'x-anthropic-version': 'x',
      'idempotency-key': 'i-1',
      'x-forwarded-for': '10.1.1.1',
      'x-stainless-os': 'Linux',
      'x-user-id': 'someone',
      'x-ops-hop': 'abc',
      referer: 'http://localhost/',
      'accept-language': 'de',
      'accept-encoding': 'gzip',
    });
    const request = await openai.received(1);
    const names = request.rawHeaders.map(([name]) => name.toLowerCase()).sort();
    expect(names).toEqual([
      'accept',
      'accept-encoding',
      'anthropic-beta',
      'anthropic-new-feature',
      'anthropic-version',
      'authorization',
      'connection',
      'content-length',
      'content-type',
      'host',
      'idempotency-key',
      'openai-organization',
      'openai-project',
      'user-agent',
    ]);
    expect(request.headers).toMatchObject({
      authorization: `Bearer ${key}`,
      'accept-encoding': 'identity',
      'openai-organization': 'org-mine',
    });
    expect(request.path).toBe('/v1/chat/completions');
  });

  it('sends no other header of Anthropic’s protocol than its version and betas where the system pays', async () => {
    const { session } = await signedIn();
    await chat(session, hello(undefined), ANTHROPIC_HEADERS);
    const { rawHeaders } = await system.received(1);
    const names = rawHeaders.map(([name]) => name.toLowerCase()).filter((name) => name.includes('anthropic'));
    expect(names.sort()).toEqual(['anthropic-beta', 'anthropic-version']);
  });

  it('drops and names what can neither cost nor steer where the system pays, and passes it on an own key', async () => {
    const { session } = await signedIn();
    const fields = { prompt_cache_key: 'k', service_tier: 'auto', metadata: { a: 'b' }, temperature: 0 };
    const paidBySystem = await chat(session, hello('gpt-4o', fields));
    expect([paidBySystem.status, paidBySystem.headers.get('x-ops-dropped')]).toEqual([
      200,
      'prompt_cache_key, service_tier, metadata',
    ]);
    const sent = await system.received(1);
    const { messages } = hello('gpt-4o');
    expect(sent.body.toString()).toBe(
      `{"model":"gpt-4o","messages":${JSON.stringify(messages)},"temperature":0}`,
    );
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const paidByUser = await chat(session, hello('gpt-4o', fields));
    expect([paidByUser.status, paidByUser.headers.has('x-ops-dropped')]).toEqual([200, false]);
    expect(JSON.parse((await openai.received(1)).body.toString())).toEqual(hello('gpt-4o', fields));
  });

  it('refuses what can cost or steer where the system pays, without a call', async () => {
    const { session } = await signedIn();
    const image = [{ type: 'image_url', image_url: { url: 'https://10.0.0.5/' } }];
    for (const fields of [
      { service_tier: 'priority' },
      { n: 100_000 },
      { max_tokens: 1e9 },
      { tool_choice: { type: 'web_search' } },
      { messages: [{ role: 'user', content: image }] },
    ]) {
      const response = await chat(session, hello('gpt-4o', fields));
      expect([fields, response.status]).toEqual([fields, 400]);
    }
    expect(system.requests).toHaveLength(0);
  });

  it('forwards no account headers with the system key', async () => {
    const { session } = await signedIn();
    await chat(session, hello(undefined), { 'openai-organization': 'org-mine', 'openai-project': 'p' });
    const { headers } = await system.received(1);
    expect(headers['openai-organization']).toBeUndefined();
    expect(headers['openai-project']).toBeUndefined();
  });

  it.each([[false], [true]])(
    'returns only the allowed headers of a response with 60 hostile ones (streamed: %s)',
    async (stream) => {
      const { session } = await signedIn();
      await addKey(app, session, { provider: 'openai', key: openAiKey() });
      const plain = await chat(session, hello('gpt-4o', { stream }));
      const usual = new Set(plain.headers.keys());
      await plain.text();
      openai.reply(answer.hostileHeaders());
      const response = await chat(session, hello('gpt-4o', { stream }));
      expect(HOSTILE_HEADERS.length).toBeGreaterThanOrEqual(60);
      const added = [...response.headers.keys()].filter((name) => !usual.has(name)).sort();
      expect(added).toEqual([...ALLOWED_HEADERS.map(([name]) => name), 'x-ops-upstream-request-id'].sort());
      for (const [name, value] of ALLOWED_HEADERS) expect(response.headers.get(name)).toBe(value);
      expect([...response.headers.values()].join()).not.toContain('hostile');
      expect(Object.fromEntries(response.headers)).toMatchObject({
        'x-content-type-options': 'nosniff',
        'cache-control': 'no-store',
        'content-security-policy': "default-src 'none'; sandbox",
      });
    },
  );

  it('refuses fields with the system key that could cost or access more than this response, and names them', async () => {
    const { session } = await signedIn();
    const response = await chat(session, hello(undefined, { previous_response_id: 'resp_1' }));
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { code: 'field_not_allowed', param: 'previous_response_id' },
    });
    expect(system.requests).toHaveLength(0);
  });

  it('refuses fields that steer a proxy when the operator set the address', async () => {
    const { session } = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const response = await chat(session, hello('gpt-4o', { api_base: 'http://other.example' }));
    expect(await response.json()).toMatchObject({ error: { code: 'field_not_allowed', param: 'api_base' } });
    expect(openai.requests).toHaveLength(0);
  });

  it.each<[number, string, { body?: string; headers?: Record<string, string> }]>([
    [400, 'ambiguous_field', { body: '{"model":"gpt-4o","Model":"x"}' }],
    [400, 'validation_failed', { body: '{' }],
    [400, 'validation_failed', {}],
    [
      415,
      'unsupported_media_type',
      { body: 'a=1', headers: { 'content-type': 'application/x-www-form-urlencoded' } },
    ],
    [415, 'unsupported_media_type', { body: '{}', headers: { 'content-encoding': 'gzip' } }],
    [413, 'body_too_large', { body: `{"a":"${'x'.repeat(33 * 1024 * 1024)}"}` }],
  ])('answers %s %s to an invalid body', async (status, code, options) => {
    const { session } = await signedIn();
    const response = await app.call(CHAT, {
      method: 'POST',
      session,
      ...options,
      headers: { 'content-type': 'application/json', ...options.headers },
    });
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { code } });
  });

  it('forwards a large body completely', async () => {
    const { session } = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    const body = JSON.stringify(hello('openai/gpt-4o', { pad: 'é'.repeat(10 * 1024 * 1024) }));
    const response = await app.call(CHAT, {
      method: 'POST',
      session,
      body,
      headers: { 'content-type': 'application/json' },
    });
    expect(response.status).toBe(200);
    expect((await openai.received(1)).body.equals(Buffer.from(body.replace('openai/gpt-4o', 'gpt-4o')))).toBe(
      true,
    );
  });

  it('redacts the key in an upstream’s error, in every encoded form', async () => {
    const { session } = await signedIn();
    const key = openAiKey();
    await addKey(app, session, { provider: 'openai', key });
    const forms = [key, Buffer.from(key).toString('base64'), encodeURIComponent(key)];
    openai.reply(
      answer.reply({
        status: 400,
        body: { error: { message: forms.join(' ') } },
        headers: { 'x-ratelimit-echo': key },
      }),
    );
    const response = await chat(session, hello('gpt-4o'));
    const seen = (await response.text()) + [...response.headers.values()].join();
    for (const form of forms) expect(seen).not.toContain(form);
    expect(seen).toContain('***');
  });
});

describe('limits of the system key', () => {
  it('are 4 concurrent requests and 30 a minute for each user', async () => {
    const { session } = await signedIn('free');
    const gate = Promise.withResolvers<null>();
    system.answerAll(answer.held(1, gate.promise));
    const running = Array.from({ length: 4 }, () => chat(session, hello(undefined, { stream: true })));
    await system.received(4);
    const fifth = await chat(session, hello(undefined));
    expect(fifth.status).toBe(429);
    expect(fifth.headers.get('retry-after')).toBe('1');
    gate.resolve(null);
    for (const response of await Promise.all(running)) await response.text();
    system.answerAll(answer.completion());
    const statuses: number[] = [];
    let last: Awaited<ReturnType<typeof chat>> | undefined;
    for (let count = 4; count < 31; count += 1) {
      last = await chat(session, hello(undefined));
      statuses.push(last.status);
      if (count === 4) expect(last.headers.get('ratelimit')).toMatch(/^"system";r=25;t=\d+$/);
    }
    expect(statuses.slice(0, 26)).toEqual(Array.from({ length: 26 }, () => 200));
    expect(statuses[26]).toBe(429);
    expect(last?.headers.get('ratelimit-policy')).toBe('"system";q=30;w=60');
    expect(Number(last?.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(await last?.json()).toMatchObject({ error: { code: 'rate_limited', type: 'rate_limit_error' } });
  });
});

describe('paths', () => {
  it('are case sensitive', async () => {
    const { session } = await signedIn();
    expect(
      (await app.call('/V1/chat/completions', { method: 'POST', session, json: hello('gpt-4o') })).status,
    ).toBe(404);
  });
});

describe('a key that is replaced while the old one is in use', () => {
  it('is not marked invalid by a late refusal of the old one', async () => {
    const { session } = await signedIn();
    const [old, fresh] = [openAiKey(), openAiKey()];
    const id = await addKey(app, session, { provider: 'openai', key: old });
    const gate = Promise.withResolvers<undefined>();
    openai.answerKey(old, async (writer) => {
      await gate.promise;
      await answer.error(401)(writer);
    });
    openai.answerKey(fresh, answer.completion());
    const late = chat(session, hello('gpt-4o'));
    await openai.received(1);
    const json = { provider: 'openai', key: fresh, key_id: id };
    const replaced = await app.call('/api/v1/byok/keys/add', { method: 'POST', session, json });
    expect(replaced.status).toBe(200);
    gate.resolve(undefined);
    expect((await late).status).toBe(401);
    expect((await chat(session, hello('gpt-4o'))).status).toBe(200);
  });
});

describe('GET /v1/models', () => {
  it('lists the models of the user’s keys and the system, live when the provider responds', async () => {
    const { session } = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.answerAll(answer.models(['gpt-live']));
    const list = (await (await app.call('/v1/models', { session })).json()) as {
      data: { id: string; x_ops_scope: string }[];
    };
    expect(list.data.map(({ id, x_ops_scope }) => [id, x_ops_scope])).toEqual([
      ['openai/gpt-live', 'personal'],
      ['openrouter/vendor/default-model', 'system'],
      ['openrouter/gpt-4o', 'system'],
    ]);
  });

  it('sends each provider its own authorization headers, and accepts a bare array', async () => {
    const { session } = await signedIn();
    const key = `sk-ant-api03-${openAiKey().slice(3)}`;
    await addKey(app, session, { provider: 'anthropic', key });
    await addKey(app, session, { provider: 'together', key: `tgp_v1_${openAiKey().slice(3)}` });
    openai.answerAll({ status: 200, body: [{ id: 'listed', object: 'model' }] });
    const list = (await (await app.call('/v1/models', { session })).json()) as { data: { id: string }[] };
    expect(list.data.map(({ id }) => id)).toEqual(
      expect.arrayContaining(['anthropic/listed', 'together/listed']),
    );
    const requestHeaders = openai.requests.map(({ rawHeaders }) => rawHeaders.flat());
    const anthropicHeaders = requestHeaders.find((headers) => headers.includes('x-api-key'));
    expect(anthropicHeaders).toEqual(expect.arrayContaining([key, 'anthropic-version']));
    expect(anthropicHeaders).not.toContain('authorization');
  });

  it('falls back to the catalogue when the provider times out', async () => {
    const { session } = await signedIn();
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    openai.answerAll(fault.silent());
    const list = (await (await app.call('/v1/models', { session })).json()) as { data: { id: string }[] };
    expect(list.data.map(({ id }) => id)).toContain('openai/gpt-4o');
  });
});

/** Changes the tier as an administrator would, and waits until the app uses it. */
async function setTier(session: string, user: TestUser, tier: string): Promise<void> {
  const admin = await adminClient();
  const { userProfileMetadata: _metadata, ...stored } = (await admin.users.findOne({ id: user.id })) ?? {};
  await admin.users.update(
    { id: user.id },
    { ...stored, attributes: { ...stored.attributes, subscription_tier: [tier] } },
  );
  await until(
    async () => (await app.call('/api/v1/me', { session })).json() as Promise<{ tier: string }>,
    (me) => me.tier === tier,
  );
}
