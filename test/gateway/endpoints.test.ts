import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';

let gateway: Gateway;
let app: TestApp;
/** Two endpoints of one user, of two companies. */
let first: Upstream;
let second: Upstream;
let session: string;

beforeAll(async () => {
  gateway = await startGateway(({ openai }) => ({
    UPSTREAM_TOGETHER_URL: openai.url,
    UPSTREAM_OPENROUTER_URL: openai.url,
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODELS: '*',
  }));
  ({ app } = gateway);
});
afterAll(() => gateway.stop());
beforeEach(async () => {
  [first, second] = [await startUpstream(), await startUpstream()];
  session = await app.signIn(await createUser({ tier: 'starter' }));
});
afterEach(async () => {
  gateway.reset();
  await first.stop();
  await second.stop();
});

const slugOf = ({ port }: Upstream) => `127.0.0.1-${port}`;
const addEndpoint = ({ url }: Upstream, provider = 'custom') =>
  addKey(app, session, { provider, key: openAiKey(), endpoint: url });
const chat = (model: string) => {
  const json = { model, messages: [{ role: 'user', content: 'Hello' }] };
  return app.call('/v1/chat/completions', { method: 'POST', session, json });
};
const chatsAt = (upstream: Upstream) =>
  upstream.requests.filter(({ path }) => path.endsWith('/chat/completions'));
const preview = async (model: string) =>
  (await app.call(`/api/v1/byok/route?model=${encodeURIComponent(model)}`, { session })).json();

describe.each(['custom', 'ollama'])('two endpoints of %s', (provider) => {
  it('have a pool each: the name of one selects its keys only', async () => {
    const keyId = await addEndpoint(first, provider);
    await addEndpoint(second, provider);
    for (let count = 0; count < 4; count += 1) {
      const response = await chat(`${provider}:${slugOf(first)}/some/model`);
      expect(response.status).toBe(200);
      expect(response.headers.get('x-ops-key-id')).toBe(keyId);
      expect(response.headers.get('x-ops-endpoint')).toBe(slugOf(first));
      expect(response.headers.get('x-ops-model')).toBe('some/model');
    }
    expect([chatsAt(first).length, second.requests.length]).toEqual([4, 0]);
    expect(app.events('answer_passed').at(-1)).toMatchObject({ provider, endpoint: slugOf(first) });
  });

  it.each([
    ['a refused key', answer.error(401)],
    ['a server error', answer.error(503)],
    ['a rate limit', answer.error(429)],
    ['a connection that is reset', fault.resetBeforeHeaders()],
  ])('never receive the prompt of the other: %s', async (_name, failure) => {
    await addEndpoint(first, provider);
    await addEndpoint(second, provider);
    first.answerAll(failure);
    const response = await chat(`${provider}:${slugOf(first)}/model`);
    expect(response.ok).toBe(false);
    expect(response.headers.get('x-ops-endpoint')).toBe(slugOf(first));
    expect([second.requests.length, gateway.system.requests.length]).toEqual([0, 0]);
  });

  it('are named by keys, model list and preview', async () => {
    await addEndpoint(first, provider);
    await addEndpoint(second, provider);
    const keys = z
      .array(z.object({ endpoint_slug: z.string() }))
      .parse(await (await app.call('/api/v1/byok/keys', { session })).json());
    expect(keys.map(({ endpoint_slug }) => endpoint_slug)).toEqual([slugOf(first), slugOf(second)]);
    first.answerAll(answer.models(['a']));
    second.answerAll(answer.models(['b']));
    const list = z
      .object({ data: z.array(z.object({ id: z.string() })) })
      .parse(await (await app.call('/v1/models', { session })).json());
    expect(list.data.map(({ id }) => id)).toEqual(
      expect.arrayContaining([`${provider}:${slugOf(first)}/a`, `${provider}:${slugOf(second)}/b`]),
    );
    expect(await preview(`${provider}:${slugOf(second)}/b`)).toMatchObject({
      provider,
      model: 'b',
      endpoint_slug: slugOf(second),
      lists_read: true,
    });
  });
});

describe('a name without an endpoint', () => {
  it('selects the only endpoint', async () => {
    await addEndpoint(first);
    expect((await chat('custom/model')).status).toBe(200);
    // No list is needed.
    expect(first.requests).toHaveLength(1);
  });

  it('selects the endpoint that lists the model, whose list is read once', async () => {
    await addEndpoint(first);
    await addEndpoint(second);
    expect(await preview('custom/only-here')).toMatchObject({ reason: 'ambiguous_model', lists_read: false });
    expect([first.requests.length, second.requests.length]).toEqual([0, 0]);
    second.reply(answer.models(['only-here']));
    const statuses = [await chat('custom/only-here'), await chat('custom/only-here')].map(
      ({ status }) => status,
    );
    expect(statuses).toEqual([200, 200]);
    expect([first.requests.length, chatsAt(first).length]).toEqual([1, 0]);
    expect([second.requests.length, chatsAt(second).length]).toEqual([3, 2]);
    expect(await preview('custom/only-here')).toMatchObject({
      endpoint_slug: slugOf(second),
      lists_read: true,
    });
  });

  it('is refused when several endpoints could serve it, with the names to choose from', async () => {
    await addEndpoint(first);
    await addEndpoint(second);
    const response = await chat('custom/unlisted');
    const candidates = [`custom:${slugOf(first)}/unlisted`, `custom:${slugOf(second)}/unlisted`];
    expect(response.status).toBe(400);
    expect(response.headers.get('x-should-retry')).toBe('false');
    expect(await response.json()).toMatchObject({ error: { code: 'ambiguous_model', candidates } });
    expect([chatsAt(first).length, chatsAt(second).length]).toEqual([0, 0]);
    expect(await preview('custom/unlisted')).toMatchObject({ reason: 'ambiguous_model', candidates });
  });

  it('is not paid by the system when the endpoint in it is unknown', async () => {
    await addEndpoint(first);
    const response = await chat('custom:elsewhere.example/model');
    expect([response.status, gateway.system.requests.length]).toEqual([404, 0]);
  });
});

describe('GET /v1/models', () => {
  const listIds = async () => {
    const response = await app.call('/v1/models', { session });
    const List = z.object({ data: z.array(z.object({ id: z.string(), x_ops_scope: z.string() })) });
    return List.parse(await response.json()).data.map(({ id, x_ops_scope }) => `${x_ops_scope} ${id}`);
  };

  it('shows a model of the system unless a key of the user serves its name', async () => {
    const ofSystem = 'system openrouter/upstream-model';
    expect(await listIds()).toContain(ofSystem);
    await addKey(app, session, { provider: 'together', key: `tgp_v1_${openAiKey().slice(3)}` });
    gateway.openai.reply(answer.models(['openrouter/upstream-model']));
    expect(await listIds()).toEqual(['personal together/openrouter/upstream-model']);
  });

  it('shows no model of the system’s provider where the user has a key for it', async () => {
    await addKey(app, session, { provider: 'openrouter', key: `sk-or-v1-${openAiKey().slice(3)}` });
    expect((await listIds()).filter((entry) => entry.startsWith('system'))).toEqual([]);
  });

  it('is limited, since the list of all endpoints is large', async () => {
    const statuses = new Set<number>();
    for (let count = 0; count < 121; count += 1)
      statuses.add((await app.call('/v1/models', { session })).status);
    expect([...statuses]).toEqual([200, 429]);
  });
});

describe('a model that a key lists', () => {
  it('is served by this key, not by the system, as soon as the list was read', async () => {
    await addKey(app, session, { provider: 'together', key: `tgp_v1_${openAiKey().slice(3)}` });
    gateway.openai.reply(answer.models(['vendor/new-model']));
    const response = await chat('vendor/new-model');
    expect(response.headers.get('x-ops-key-scope')).toBe('personal');
    expect(response.headers.get('x-ops-model')).toBe('vendor/new-model');
    expect(gateway.system.requests).toHaveLength(0);
  });

  it('is decided after at most 2 s when the list does not arrive, which is waited for once', async () => {
    await addKey(app, session, { provider: 'together', key: `tgp_v1_${openAiKey().slice(3)}` });
    gateway.openai.reply(fault.silent());
    const responses = [await chat('vendor/unlisted'), await chat('vendor/unlisted')];
    expect(responses.map((response) => response.headers.get('x-ops-key-scope'))).toEqual([
      'system',
      'system',
    ]);
    expect(gateway.openai.requests).toHaveLength(1);
  });
});

describe('a key that moves to another endpoint while a request runs', () => {
  it('does not receive the rest of this request', async () => {
    const [refused, moved] = [openAiKey(), openAiKey()];
    const ids: Record<string, string> = {};
    for (const key of [refused, moved])
      ids[key] = await addKey(app, session, { provider: 'custom', key, endpoint: first.url });
    const gate = Promise.withResolvers<undefined>();
    first.answerAll(async (writer) => {
      await gate.promise;
      await answer.error(401)(writer);
    });
    const running = chat(`custom:${slugOf(first)}/model`);
    const usedKey = String((await first.received(1)).key);
    const other = usedKey === refused ? moved : refused;
    const json = { provider: 'custom', key: other, endpoint: second.url, key_id: ids[other] };
    expect((await app.call('/api/v1/byok/keys/add', { method: 'POST', session, json })).status).toBe(200);
    gate.resolve(undefined);
    expect((await running).status).toBe(401);
    expect([first.requests.length, second.requests.length]).toEqual([1, 0]);
  });
});
