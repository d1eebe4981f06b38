import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { fernetKey, startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser, type TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';

let app: TestApp;
let upstream: Upstream;

beforeAll(async () => {
  upstream = await startUpstream();
  // The system would pay for every model: it must not, where a key of one's own is damaged.
  app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: upstream.url,
      UPSTREAM_OPENROUTER_URL: upstream.url,
      DEFAULT_LLM_PROVIDER: 'openrouter',
      DEFAULT_LLM_API_KEY: 'sk-or-v1-of-the-system-default',
      DEFAULT_LLM_BASE_URL: upstream.url,
      DEFAULT_LLM_MODEL: 'any/model',
      DEFAULT_LLM_MODELS: '*',
    },
  });
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});
afterEach(() => {
  upstream.reset();
});

interface Person {
  user: TestUser;
  session: string;
  key: string;
  keyId: string;
  /** What the vault holds of the key. */
  value: string;
}

/** Someone with one key for OpenAI. */
async function personWithKey(): Promise<Person> {
  const user = await createUser({ tier: 'starter' });
  const session = await app.signIn(user);
  const key = openAiKey();
  const keyId = await addKey(app, session, { provider: 'openai', key });
  const value = (await readVaultRecord(user)).attributes['byok_openai']?.[0] ?? '';
  return { user, session, key, keyId, value };
}

const chat = (session: string, model: string, by: TestApp = app) =>
  by.call('/v1/chat/completions', {
    method: 'POST',
    session,
    json: { model, messages: [{ role: 'user', content: 'Hello' }] },
  });

/** The chat is refused for that key alone, nobody is called, and the key is listed as what it is. */
async function expectUndecryptable(
  person: Pick<Person, 'session' | 'keyId'>,
  model: string,
  by: TestApp = app,
): Promise<void> {
  const response = await chat(person.session, model, by);
  expect(response.status).toBe(424);
  expect(await response.json()).toMatchObject({
    error: {
      code: 'key_undecryptable',
      skipped: [{ key_id: person.keyId, reason: 'undecryptable' }],
    },
  });
  expect(response.headers.get('x-should-retry')).toBe('false');
  expect(upstream.requests).toHaveLength(0);
  expect(by.events('key_undecryptable').at(-1)).toMatchObject({ key_id: person.keyId });
  await until(
    () => statusOf(person.session, model, person.keyId, by),
    (status) => status === 'undecryptable',
  );
}

/** The key serves and is shown as whole, and the upstream gets exactly it. */
async function expectServing(person: Person): Promise<void> {
  upstream.reset();
  const response = await chat(person.session, 'openai/gpt-4o');
  expect(response.status).toBe(200);
  expect(response.headers.get('x-ops-key-id')).toBe(person.keyId);
  expect((await upstream.received(1)).key).toBe(person.key);
  await until(
    () => statusOf(person.session, 'openai/gpt-4o', person.keyId),
    (status) => status !== 'undecryptable',
  );
}

/** How the key is listed; it is noted after the answer. */
async function statusOf(session: string, model: string, keyId: string, by: TestApp = app): Promise<unknown> {
  const response = await by.call('/api/v1/byok/keys', { session });
  expect(response.status).toBe(200);
  const keys = (await response.json()) as { id: string; provider: string; test_status: string }[];
  const provider = model.split('/')[0];
  return keys.find((key) => key.id === keyId && key.provider === provider)?.test_status;
}

/** Changes one character in the middle of the Fernet token. */
function edited(value: string): string {
  const stored = JSON.parse(value) as { token: string };
  const at = Math.floor(stored.token.length / 2);
  const other = stored.token[at] === 'A' ? 'B' : 'A';
  return JSON.stringify({ ...stored, token: stored.token.slice(0, at) + other + stored.token.slice(at + 1) });
}

describe('a ciphertext that an administrator', () => {
  it('copies to another person’s record is of no use there, and is back in use when that is undone', async () => {
    const [owner, other] = [await personWithKey(), await personWithKey()];
    await editVaultRecord(other.user, { byok_openai: [owner.value] });
    await expectUndecryptable({ session: other.session, keyId: owner.keyId }, 'openai/gpt-4o');
    expect((await readVaultRecord(other.user)).attributes['byok_openai']).toEqual([owner.value]);
    await expectServing(owner);
    await editVaultRecord(other.user, { byok_openai: [other.value] });
    await expectServing(other);
  });

  it('puts beside a person’s own key is passed over: the own key serves', async () => {
    const [owner, other] = [await personWithKey(), await personWithKey()];
    await editVaultRecord(other.user, { byok_openai: [owner.value, other.value] });
    for (let turn = 1; turn <= 3; turn += 1) {
      expect((await chat(other.session, 'openai/gpt-4o')).status).toBe(200);
      expect((await upstream.received(turn)).key).toBe(other.key);
    }
    await until(
      () => statusOf(other.session, 'openai/gpt-4o', owner.keyId),
      (status) => status === 'undecryptable',
    );
  });

  it('copies to another provider of the same person is of no use there, and stays in use where it was', async () => {
    const person = await personWithKey();
    await editVaultRecord(person.user, { byok_openrouter: [person.value] });
    await expectUndecryptable(person, 'openrouter/openai/gpt-4o');
    await expectServing(person);
    expect((await readVaultRecord(person.user)).attributes).toMatchObject({
      byok_openai: [person.value],
      byok_openrouter: [person.value],
    });
  });

  it.each([
    ['edits', edited],
    ['cuts short', (value: string) => value.replace(/.{8}"}$/, '"}')],
    ['replaces by text', (value: string) => value.replace(/"token":"[^"]*"/, '"token":"sk-of-the-admin"')],
    [
      'gives another endpoint',
      (value: string) => value.replace('"endpoint":null', '"endpoint":"http://127.0.0.1:9"'),
    ],
  ])('%s is not opened, and is back in use when that is undone', async (_name, change) => {
    const person = await personWithKey();
    const changed = change(person.value);
    expect(changed).not.toBe(person.value);
    await editVaultRecord(person.user, { byok_openai: [changed] });
    await expectUndecryptable(person, 'openai/gpt-4o');
    expect((await readVaultRecord(person.user)).attributes['byok_openai']).toEqual([changed]);
    await editVaultRecord(person.user, { byok_openai: [person.value] });
    await expectServing(person);
  });
});

describe('a vault record that names another owner', () => {
  it('is refused for list, route and chat, the system does not pay, and all is back when that is undone', async () => {
    const person = await personWithKey();
    const { attributes } = await readVaultRecord(person.user);
    await editVaultRecord(person.user, { owner: ['user:somebody-else'] });
    for (const path of ['/api/v1/byok/keys', '/api/v1/byok/route?model=gpt-4o']) {
      const response = await app.call(path, { session: person.session });
      expect([response.status, await response.json()]).toMatchObject([424, { code: 'key_undecryptable' }]);
    }
    for (const model of ['openai/gpt-4o', 'any/model']) {
      const response = await chat(person.session, model);
      expect([response.status, await response.json()]).toMatchObject([
        424,
        { error: { code: 'key_undecryptable', skipped: [] } },
      ]);
      expect(response.headers.get('x-should-retry')).toBe('false');
    }
    expect(upstream.requests).toHaveLength(0);
    expect(app.events('key_undecryptable').at(-1)).toMatchObject({ user: person.user.id, key_id: null });
    await editVaultRecord(person.user, { owner: attributes['owner'] ?? [] });
    await expectServing(person);
  });
});

describe('a key under an encryption key that the app does not have', () => {
  it('is refused there, listed, untouched, and served where the encryption key is known', async () => {
    const person = await personWithKey();
    const before = await readVaultRecord(person.user);
    await using stranger = await startApp({
      shared: app,
      env: { ENCRYPTION_KEY: fernetKey(), UPSTREAM_OPENAI_URL: upstream.url },
    });
    const session = await stranger.signIn(person.user);
    await expectUndecryptable({ session, keyId: person.keyId }, 'openai/gpt-4o', stranger);
    expect(await readVaultRecord(person.user)).toEqual(before);
    await expectServing(person);
  });

  it('stays when another key is added beside it under the app’s own', async () => {
    const person = await personWithKey();
    await using stranger = await startApp({
      shared: app,
      env: { ENCRYPTION_KEY: fernetKey(), UPSTREAM_OPENAI_URL: upstream.url },
    });
    const session = await stranger.signIn(person.user);
    const added = openAiKey();
    await addKey(stranger, session, { provider: 'openai', key: added });
    expect((await chat(session, 'openai/gpt-4o', stranger)).status).toBe(200);
    expect((await upstream.received(1)).key).toBe(added);
    expect((await readVaultRecord(person.user)).attributes['byok_openai']).toContain(person.value);
    await expectServing(person);
  });

  it('is opened by an app that lists it as an older one', async () => {
    const person = await personWithKey();
    await using rotated = await startApp({
      shared: app,
      env: {
        ENCRYPTION_KEY: `${fernetKey()},${app.config.encryptionKeys.join(',')}`,
        UPSTREAM_OPENAI_URL: upstream.url,
      },
    });
    const session = await rotated.signIn(person.user);
    expect((await chat(session, 'openai/gpt-4o', rotated)).status).toBe(200);
    expect((await upstream.received(1)).key).toBe(person.key);
  });
});
