import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser } from '../support/stack.ts';
import { bearer, createToken } from '../support/token.ts';
import { until } from '../support/until.ts';

let gateway: Gateway;
let session: string;
/** The user's keys for OpenAI, in the order of creation. */
let keys: { id: string; key: string }[];

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'system-default-key-of-this-test',
    DEFAULT_LLM_MODEL: 'openrouter/auto',
    DEFAULT_LLM_MODELS: '*',
  }));
  session = await gateway.app.signIn(await createUser({ tier: 'starter' }));
  keys = [];
  for (const key of [openAiKey(), openAiKey(), openAiKey()])
    keys.push({ id: await addKey(gateway.app, session, { provider: 'openai', key }), key });
});
afterAll(async () => {
  await gateway.stop();
});
afterEach(() => {
  gateway.reset();
});

async function chat(token: string, model = 'openai/gpt-4o') {
  const json = { model, messages: [{ role: 'user', content: 'Hello' }] };
  const headers = bearer(token);
  const response = await gateway.app.call('/v1/chat/completions', { method: 'POST', headers, json });
  const { error } = (await response.json()) as { error?: { code: string } };
  const header = (name: string) => response.headers.get(name);
  return {
    ...{ status: response.status, code: error?.code },
    ...{ scope: header('x-ops-key-scope'), keyId: header('x-ops-key-id'), reason: header('x-ops-reason') },
  };
}

async function byok(token: string, method: string, path: string, json?: unknown) {
  const response = await gateway.app.call(`/api/v1/byok${path}`, { method, headers: bearer(token), json });
  return { status: response.status, body: await response.json() };
}

describe('a token with models', () => {
  it.each([
    ['openai/gpt-4o', 'openai/gpt-4o', 200],
    ['openai/gpt-4o', 'gpt-4o', 200],
    ['openai/gpt-4o', 'openai/gpt-4o-mini', 404],
    ['openai/gpt-4o*', 'openai/gpt-4o-mini', 200],
    ['openai/*', 'openai/o3', 200],
    ['openai/*', 'openrouter/openai/o3', 404],
    ['groq/*', 'openai/gpt-4o', 404],
  ])('%s: the model %s answers %i', async (pattern, model, status) => {
    const { token } = await createToken(gateway.app, session, { models: [pattern] });
    const { status: actual, code } = await chat(token, model);
    expect([actual, code]).toEqual([status, status === 404 ? 'model_not_found' : undefined]);
  });

  it('lists and previews no other model', async () => {
    const models = ['openai/gpt-4o'];
    const { token } = await createToken(gateway.app, session, { models, scopes: ['chat', 'keys:read'] });
    const response = await gateway.app.call('/v1/models', { headers: bearer(token) });
    const { data } = (await response.json()) as { data: { id: string }[] };
    expect(data.map(({ id }) => id).filter((id) => !models.includes(id))).toEqual([]);
    expect((await byok(token, 'GET', '/route?model=openai/o3')).body).toMatchObject({
      reason: 'model_not_of_token',
      key_id: null,
    });
  });

  it.each(['models', 'fallbacks', 'Models', 'route', 'preset', 'plugins', 'prompt'])(
    'accepts no field %s, by which another model would serve',
    async (field) => {
      const { token } = await createToken(gateway.app, session, { models: ['openai/*'] });
      const json = { model: 'openai/gpt-4o', messages: [], [field]: ['openai/o3'] };
      const init = { method: 'POST', headers: bearer(token), json };
      const response = await gateway.app.call('/v1/chat/completions', init);
      expect([response.status, await response.json()]).toMatchObject([
        400,
        { error: { code: 'field_not_allowed', param: field } },
      ]);
    },
  );

  it.each([{ models: ['openai/*'] }, { key_ids: [] as string[] }])('reads no ledger: %j', async (limits) => {
    const json = 'key_ids' in limits ? { key_ids: keys.slice(0, 1).map(({ id }) => id) } : limits;
    const { token } = await createToken(gateway.app, session, { ...json, scopes: ['keys:read'] });
    for (const path of ['', '/requests', '/requests/some-id']) {
      const response = await gateway.app.call(`/api/v1/usage${path}`, { headers: bearer(token) });
      expect([response.status, await response.json()]).toMatchObject([403, { code: 'scope_required' }]);
    }
  });

  it('names no other model beside one that is not found', async () => {
    const { token } = await createToken(gateway.app, session, { models: ['openai/gpt-4o*'] });
    const response = await gateway.app.call('/v1/models/gpt-4', { headers: bearer(token) });
    const { error } = (await response.json()) as { error: { candidates: string[] } };
    expect(error.candidates.filter((id) => !id.startsWith('openai/gpt-4o'))).toEqual([]);
  });
});

describe('a token with key_ids', () => {
  it('uses only these keys, in turn', async () => {
    const own = keys.slice(0, 2).map(({ id }) => id);
    const { token } = await createToken(gateway.app, session, { key_ids: own });
    const used = new Set<string | null>();
    for (let count = 0; count < 6; count += 1) used.add((await chat(token)).keyId);
    expect([...used].sort()).toEqual([...own].sort());
  });

  it.each([
    ['that is disabled', 'openai/gpt-4o'],
    ['that serves another provider', 'openrouter/auto'],
    ['that serves no such model', 'mistral/any'],
  ])('with one key %s answers 424, and neither another key nor the system serves', async (name, model) => {
    const id = keys[2]?.id ?? '';
    const setEnabled = (enabled: boolean) =>
      gateway.app.call(`/api/v1/byok/keys/openai/${id}`, { method: 'PATCH', session, json: { enabled } });
    if (name === 'that is disabled') await setEnabled(false);
    const { token } = await createToken(gateway.app, session, { key_ids: [id] });
    expect(await chat(token, model)).toMatchObject({ status: 424, code: 'no_usable_key' });
    await setEnabled(true);
    const chats = [...gateway.openai.requests, ...gateway.system.requests].filter(
      ({ method }) => method === 'POST',
    );
    expect(chats).toEqual([]);
  });

  it('whose keys were deleted answers 424', async () => {
    const { token } = await createToken(gateway.app, session, { key_ids: ['deleted12345'] });
    expect(await chat(token)).toMatchObject({ status: 424, code: 'no_usable_key' });
    expect(gateway.openai.requests).toHaveLength(0);
  });

  it('lists, changes, tests and deletes only these keys, and adds none', async () => {
    const [own, other] = keys.map(({ id }) => id);
    const scopes = ['keys:read', 'keys:write'];
    const { token } = await createToken(gateway.app, session, { key_ids: [own], scopes });
    expect((await byok(token, 'GET', '/keys')).body).toMatchObject([{ id: own }]);
    expect((await byok(token, 'PATCH', `/keys/openai/${own}`, { label: 'Mine' })).status).toBe(200);
    const tested = await byok(token, 'POST', '/keys/test/openai');
    expect(tested.body).toMatchObject({ results: [{ key_id: own }] });
    const notFound = { status: 404, body: { code: 'key_not_found' } };
    expect(await byok(token, 'PATCH', `/keys/openai/${other}`, { label: 'x' })).toMatchObject(notFound);
    expect(await byok(token, 'POST', `/keys/test/openai?key_id=${other}`)).toMatchObject(notFound);
    expect(await byok(token, 'DELETE', `/keys/openai?key_id=${other}`)).toMatchObject(notFound);
    const added = { provider: 'openai', key: openAiKey() };
    expect(await byok(token, 'POST', '/keys/add', { ...added, key_id: other })).toMatchObject(notFound);
    expect(await byok(token, 'POST', '/keys/add', added)).toMatchObject({
      status: 403,
      body: { code: 'scope_required' },
    });
  });
});

describe('a token', () => {
  it('deletes one key at a time: without key_id it is refused', async () => {
    const { token } = await createToken(gateway.app, session, { scopes: ['keys:write'] });
    expect(await byok(token, 'DELETE', '/keys/openai')).toMatchObject({
      status: 400,
      body: { code: 'validation_failed', errors: [{ path: 'key_id' }] },
    });
    const key = await addKey(gateway.app, session, { provider: 'openai', key: openAiKey() });
    expect((await byok(token, 'DELETE', `/keys/openai?key_id=${key}`)).status).toBe(200);
  });

  it('of a user below Starter is served by the system, which says why', async () => {
    const user = await createUser({ tier: 'starter' });
    const own = await gateway.app.signIn(user);
    const id = await addKey(gateway.app, own, { provider: 'openai', key: openAiKey() });
    const { token } = await createToken(gateway.app, own);
    const { token: limited } = await createToken(gateway.app, own, { key_ids: [id] });
    expect(await chat(token)).toMatchObject({ status: 200, scope: 'personal', keyId: id });
    const admin = await adminClient();
    const stored = await admin.users.findOne({ id: user.id });
    const attributes = { ...stored?.attributes, subscription_tier: ['free'] };
    await admin.users.update({ id: user.id }, { ...stored, attributes });
    const served = await until(
      () => chat(token),
      ({ scope }) => scope === 'system',
    );
    expect(served).toMatchObject({ status: 200, scope: 'system', reason: 'tier_required' });
    expect(await chat(limited)).toMatchObject({ status: 424, code: 'no_usable_key' });
  });

  it('is not sent upstream', async () => {
    const { token } = await createToken(gateway.app, session);
    expect((await chat(token)).status).toBe(200);
    const [received] = gateway.openai.requests.filter(({ method }) => method === 'POST');
    if (received === undefined) throw new Error('no chat arrived');
    expect(keys.map(({ key }) => key)).toContain(received.key);
    expect(received.rawHeaders.join('\n')).not.toContain(token);
  });
});
