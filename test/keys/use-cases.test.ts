import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import type { Principal } from '../../src/http/principal.ts';
import { isAppError, type AppError } from '../../src/lib/errors.ts';
import type { ProviderKey } from '../../src/keys/service.ts';
import { userOwner } from '../../src/lib/owner.ts';
import { startUpstream, answer, type Upstream } from '../support/upstream.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, stack } from '../support/stack.ts';
import {
  createInstance,
  createPrincipal,
  randomEncryptionKey,
  randomKey,
  type Instance,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';

let instance: Instance;
let upstream: Upstream;
/** Another process with another encryption key: it cannot decrypt keys that the first one stored. */
let otherKeyInstance: Instance;

beforeAll(async () => {
  upstream = await startUpstream();
  const { appUrl } = await createDatabase();
  const options = { ...createInstanceOptions(appUrl), upstreams: { openai: upstream.url } };
  instance = createInstance(options);
  otherKeyInstance = createInstance({ ...options, encryptionKeys: [randomEncryptionKey()] });
});

afterAll(async () => {
  await Promise.all([instance.close(), otherKeyInstance.close(), upstream.stop()]);
});

const FUTURE = '2090-01-31T00:00:00.000Z';
const ENDPOINT = 'https://llm.example.test/v1';
const OTHER_ENDPOINT = 'https://other.example.test/v1';

async function errorOf(work: Promise<unknown>): Promise<AppError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (isAppError(error)) return error;
  throw new Error('expected an AppError', { cause: error });
}

async function addKey(
  principal: Principal,
  body: Partial<Parameters<Instance['keys']['add']>[1]> = {},
  by = instance,
) {
  const { key } = await by.keys.add(principal, { provider: 'openai', key: randomKey(), ...body }, 'r');
  return key;
}

async function poolOf(principal: Principal, provider = 'openai'): Promise<readonly ProviderKey[]> {
  return (await instance.keys.readKeysByProvider(userOwner(principal.user.id))).get(provider) ?? [];
}

async function secretOf(principal: Principal, id: string, provider = 'openai') {
  return (await poolOf(principal, provider)).find((key) => key.id === id)?.decrypt();
}

async function actionsOf({ user }: Principal): Promise<string[]> {
  const rows = await instance.database.withOwner(userOwner(user.id), (sql) =>
    sql.rows(z.object({ action: z.string() }), 'SELECT action FROM audit_events ORDER BY id'),
  );
  return rows.map(({ action }) => action);
}

/** Edits each stored value, as an administrator could in the Keycloak console. */
async function editValue(userId: string, provider: string, edit: (value: Record<string, unknown>) => void) {
  await editValues(userId, provider, (values) =>
    values.map((text) => {
      const value = JSON.parse(text) as Record<string, unknown>;
      edit(value);
      return JSON.stringify(value);
    }),
  );
}

async function editValues(userId: string, provider: string, edit: (values: string[]) => string[]) {
  const admin = await adminClient(stack.keycloak.vaultRealm);
  const [found] = await admin.users.find({ username: `user.${userId}`, exact: true });
  const record = await admin.users.findOne({ id: String(found?.id) });
  const attributes = record?.attributes as Record<string, string[]>;
  const values = edit(attributes[`byok_${provider}`] ?? []);
  await admin.users.update(
    { id: String(found?.id) },
    { ...record, attributes: { ...attributes, [`byok_${provider}`]: values } },
  );
}

describe('replacing a key in place', () => {
  it('keeps id, position, creation date, label, enabled state and expiry, and stores the new key', async () => {
    const principal = createPrincipal();
    const first = await addKey(principal, { label: 'Work', expires_at: FUTURE });
    const second = await addKey(principal);
    await instance.keys.update(principal, { provider: 'openai', keyId: first.id }, { enabled: false }, 'r');
    const secret = randomKey();
    const replaced = await addKey(principal, { key: secret, key_id: first.id });
    expect(replaced).toMatchObject({
      id: first.id,
      added_date: first.added_date,
      label: 'Work',
      expires_at: FUTURE,
      enabled: false,
      key_preview: `sk-…${secret.slice(-4)}`,
    });
    expect((await instance.keys.listKeys(principal)).map(({ id }) => id)).toEqual([first.id, second.id]);
    expect(await secretOf(principal, first.id)).toEqual({ secret, endpoint: null });
    expect(await actionsOf(principal)).toEqual(['key.added', 'key.added', 'key.updated', 'key.replaced']);
  });

  it('clears an empty label and a null expiry', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, { label: 'Work', expires_at: FUTURE });
    const replaced = await addKey(principal, { key_id: id, label: null, expires_at: null });
    expect(replaced).toMatchObject({ label: null, expires_at: null });
  });

  it('resets the status of the old key', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal);
    await instance.keys.recordRefusal(userOwner(principal.user.id), 'openai', id);
    expect((await poolOf(principal))[0]?.cooldownUntil).not.toBeNull();
    const replaced = await addKey(principal, { key_id: id });
    expect(replaced.test_status).toBe('untested');
    expect((await poolOf(principal))[0]?.cooldownUntil).toBeNull();
  });

  it('is possible in a full pool', async () => {
    const principal = createPrincipal();
    const keys = [];
    for (let count = 0; count < 10; count += 1) keys.push(await addKey(principal));
    expect((await errorOf(addKey(principal))).code).toBe('pool_full');
    const replaced = await addKey(principal, { key_id: String(keys[3]?.id) });
    expect(replaced.id).toBe(keys[3]?.id);
    expect(await instance.keys.listKeys(principal)).toHaveLength(10);
  });

  it('is possible in a pool that an administrator overfilled', async () => {
    const principal = createPrincipal();
    const keys = [];
    for (let count = 0; count < 10; count += 1) keys.push(await addKey(principal));
    await editValues(principal.user.id, 'openai', (values) => [
      ...values,
      JSON.stringify({ ...(JSON.parse(String(values[0])) as object), id: 'byHand123456' }),
    ]);
    expect(await instance.keys.listKeys(principal)).toHaveLength(11);
    const secret = randomKey();
    await addKey(principal, { key: secret, key_id: String(keys[0]?.id) });
    expect((await secretOf(principal, String(keys[0]?.id)))?.secret).toBe(secret);
    expect((await errorOf(addKey(principal))).code).toBe('pool_full');
  });

  it('answers 404 for an id of another provider or user, and for an unknown id', async () => {
    const principal = createPrincipal();
    const customKey = await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    const foreignKey = await addKey(createPrincipal());
    for (const key_id of [customKey.id, foreignKey.id, 'abcDEF123456']) {
      expect((await errorOf(addKey(principal, { key_id }))).code).toBe('key_not_found');
    }
    expect(await instance.keys.listKeys(principal)).toHaveLength(1);
  });

  it('works for a key that cannot be decrypted', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, {}, otherKeyInstance);
    expect(await secretOf(principal, id)).toBeUndefined();
    const secret = randomKey();
    await addKey(principal, { key: secret, key_id: id });
    expect(await secretOf(principal, id)).toEqual({ secret, endpoint: null });
  });
});

describe('unreadable values', () => {
  it('count towards the pool limit, so that an attribute cannot grow without bound', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal);
    await editValues(principal.user.id, 'openai', (values) => [
      ...values,
      ...Array.from({ length: 9 }, (_, index) => `damaged ${index}`),
    ]);
    expect((await errorOf(addKey(principal))).code).toBe('pool_full');
    expect((await addKey(principal, { key_id: id })).id).toBe(id);
  });
});

describe('the endpoint of a stored key', () => {
  it('is kept when the new key has none', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    await addKey(principal, { provider: 'custom', key: 'new-secret-0123456789', key_id: id });
    expect(await secretOf(principal, id, 'custom')).toEqual({
      secret: 'new-secret-0123456789',
      endpoint: ENDPOINT,
    });
  });

  it('is not read from outside the token, where administrators can edit it', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    await editValue(
      principal.user.id,
      'custom',
      (value) => (value['endpoint'] = 'https://thief.example.test/v1'),
    );
    const refused = await errorOf(addKey(principal, { provider: 'custom', key_id: id }));
    expect(refused.code).toBe('key_undecryptable');
    await addKey(principal, {
      provider: 'custom',
      key: 'new-secret-0123456789',
      endpoint: ENDPOINT,
      key_id: id,
    });
    expect(await secretOf(principal, id, 'custom')).toEqual({
      secret: 'new-secret-0123456789',
      endpoint: ENDPOINT,
    });
  });

  it('cannot be changed without the key', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    const refused = await errorOf(
      addKey(principal, { provider: 'custom', key: '', endpoint: OTHER_ENDPOINT, key_id: id }),
    );
    expect(refused).toMatchObject({ code: 'validation_failed', errors: [{ path: 'key' }] });
    expect((await secretOf(principal, id, 'custom'))?.endpoint).toBe(ENDPOINT);
  });

  it('can be changed where no key is stored with it', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, { provider: 'custom', key: '', endpoint: ENDPOINT });
    await addKey(principal, { provider: 'custom', key: '', endpoint: OTHER_ENDPOINT, key_id: id });
    expect(await secretOf(principal, id, 'custom')).toEqual({ secret: '', endpoint: OTHER_ENDPOINT });
  });

  it('is kept with its key when a replacement has an empty key', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id } = await addKey(principal, { provider: 'custom', key, endpoint: ENDPOINT });
    const kept = await addKey(principal, { provider: 'custom', key: '', key_id: id, label: 'Named' });
    expect(kept.label).toBe('Named');
    expect(await secretOf(principal, id, 'custom')).toEqual({ secret: key, endpoint: ENDPOINT });
  });
});

describe('a duplicate key', () => {
  it('is refused with the label of the stored key', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    await addKey(principal, { key, label: 'Work' });
    const refused = await errorOf(addKey(principal, { key, label: 'Again' }));
    expect(refused).toMatchObject({ code: 'duplicate_key', status: 409, extra: { existing_label: 'Work' } });
    expect(JSON.stringify(refused)).not.toContain(key);
    expect(await instance.keys.listKeys(principal)).toHaveLength(1);
  });

  it('is refused as replacement of another key, and accepted as its own replacement', async () => {
    const principal = createPrincipal();
    const [one, two] = [randomKey(), randomKey()];
    const first = await addKey(principal, { key: one });
    const second = await addKey(principal, { key: two });
    expect(await errorOf(addKey(principal, { key: one, key_id: second.id }))).toMatchObject({
      code: 'duplicate_key',
      extra: { existing_label: null },
    });
    expect((await addKey(principal, { key: one, key_id: first.id, label: 'Same' })).label).toBe('Same');
  });

  it('is allowed with another endpoint and for another user', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    await addKey(principal, { provider: 'custom', key, endpoint: ENDPOINT });
    await addKey(principal, { provider: 'custom', key, endpoint: OTHER_ENDPOINT });
    await addKey(createPrincipal(), { provider: 'custom', key, endpoint: ENDPOINT });
    expect(await instance.keys.listKeys(principal)).toHaveLength(2);
  });

  it('is refused for the second of two concurrent requests', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const outcomes = await Promise.allSettled([addKey(principal, { key }), addKey(principal, { key })]);
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(await instance.keys.listKeys(principal)).toHaveLength(1);
  });
});

describe('updating a key', () => {
  const target = (keyId: string) => ({ provider: 'openai', keyId });

  it('sets the label and pauses and resumes it without changing the key or its date', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id, updated_date } = await addKey(principal, { key });
    const paused = await instance.keys.update(principal, target(id), { label: 'Work', enabled: false }, 'r');
    expect(paused).toMatchObject({ id, label: 'Work', enabled: false, updated_date });
    expect((await poolOf(principal))[0]).toMatchObject({ enabled: false });
    const resumed = await instance.keys.update(principal, target(id), { enabled: true }, 'r');
    expect(resumed).toMatchObject({ label: 'Work', enabled: true });
    expect(await secretOf(principal, id)).toEqual({ secret: key, endpoint: null });
  });

  it('sets an expiry, which is encrypted with the key, and removes it', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id } = await addKey(principal, { key });
    const limited = await instance.keys.update(principal, target(id), { expires_at: FUTURE }, 'r');
    expect(limited.expires_at).toBe(FUTURE);
    expect(await secretOf(principal, id)).toEqual({ secret: key, endpoint: null });
    await editValue(principal.user.id, 'openai', (value) => (value['expires_at'] = '2099-01-01T00:00:00Z'));
    expect(await secretOf(principal, id)).toBeUndefined();
    await editValue(principal.user.id, 'openai', (value) => (value['expires_at'] = FUTURE));
    const unlimited = await instance.keys.update(principal, target(id), { expires_at: null }, 'r');
    expect(unlimited.expires_at).toBeNull();
    expect(await secretOf(principal, id)).toEqual({ secret: key, endpoint: null });
  });

  it('ends its cooldown', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal);
    await instance.keys.recordRefusal(userOwner(principal.user.id), 'openai', id);
    await instance.keys.update(principal, target(id), { label: 'Repaired' }, 'r');
    expect((await poolOf(principal))[0]?.cooldownUntil).toBeNull();
  });

  it('answers 404 for an id of another provider or user, and for an unknown id', async () => {
    const principal = createPrincipal();
    const customKey = await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    const foreignKey = await addKey(createPrincipal());
    for (const id of [customKey.id, foreignKey.id, 'abcDEF123456']) {
      const refused = await errorOf(instance.keys.update(principal, target(id), { enabled: false }, 'r'));
      expect(refused.code).toBe('key_not_found');
    }
  });

  it('refuses a new expiry for a key that cannot be decrypted, but can pause it', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, {}, otherKeyInstance);
    const refused = await errorOf(instance.keys.update(principal, target(id), { expires_at: FUTURE }, 'r'));
    expect(refused.code).toBe('key_undecryptable');
    expect(await instance.keys.update(principal, target(id), { enabled: false }, 'r')).toMatchObject({
      enabled: false,
    });
  });
});

describe('the dates of a key', () => {
  it('have one precision, and compare in the order of the events', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    upstream.answerKey(key, answer.models(['gpt-4o']));
    const added = await addKey(principal, { key, validate: true });
    expect(added.updated_date).toBe(added.added_date);
    await addKey(principal, { key_id: added.id });
    await instance.keys.recordUse(userOwner(principal.user.id), 'openai', added.id);
    const [replaced] = await instance.keys.listKeys(principal);
    const dates = [added.added_date, added.last_tested, replaced?.updated_date, replaced?.last_used];
    for (const date of dates) expect(date).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/);
    expect(dates.toSorted()).toEqual(dates);
  });

  it('do not change the order of keys that were added within one second', async () => {
    const principal = createPrincipal();
    const ids: string[] = [];
    for (const provider of ['openai', 'custom', 'openai', 'custom', 'openai'])
      ids.push(
        (await addKey(principal, { provider, ...(provider === 'custom' && { endpoint: ENDPOINT }) })).id,
      );
    expect((await instance.keys.listKeys(principal)).map(({ id }) => id)).toEqual(ids);
  });

  it.each(['openai', 'custom'])('of a new key of %s are equal', async (provider) => {
    const endpoint = provider === 'custom' ? ENDPOINT : undefined;
    for (let count = 0; count < 3; count += 1) {
      const { added_date, updated_date } = await addKey(createPrincipal(), { provider, endpoint });
      expect(updated_date).toBe(added_date);
    }
  });
});

describe('an endpoint that ends in the path of a call', () => {
  const add = (principal: Principal, endpoint: string, keyId?: string) =>
    instance.keys.add(principal, { provider: 'custom', key: randomKey(), endpoint, key_id: keyId }, 'r');

  it.each([
    ['https://llm.example.test/v1/chat/completions', '/chat/completions', ENDPOINT],
    ['https://llm.example.test/v1/chat/completions/', '/chat/completions', ENDPOINT],
    ['https://llm.example.test/v1/completions', '/completions', ENDPOINT],
    ['https://llm.example.test/v1/responses', '/responses', ENDPOINT],
    ['https://llm.example.test/v1/embeddings', '/embeddings', ENDPOINT],
    ['https://llm.example.test/v1/models', '/models', ENDPOINT],
    ['https://llm.example.test/v1/messages', '/messages', ENDPOINT],
    ['https://llm.example.test/models', '/models', 'https://llm.example.test'],
    ['https://llm.example.test:8443/openai/v1/models', '/models', 'https://llm.example.test:8443/openai/v1'],
  ])('is stored without it, added or replaced, and the answer says so: %s', async (sent, end, stored) => {
    const principal = createPrincipal();
    const message = expect.stringContaining(` stored as ${stored}, without ${end}:`);
    const added = await add(principal, sent);
    expect(added).toMatchObject({ message, key: { endpoint: stored } });
    const replaced = await add(principal, sent, added.key.id);
    expect(replaced).toMatchObject({ message, key: { endpoint: stored } });
    expect((await poolOf(principal, 'custom'))[0]?.decrypt()?.endpoint).toBe(stored);
  });

  it.each([
    ENDPOINT,
    'https://llm.example.test/messages',
    'https://llm.example.test/my-models',
    'https://llm.example.test/models/v1',
    'https://models.example.test',
  ])('is not %s, which is stored as it is', async (endpoint) => {
    const { message, key } = await add(createPrincipal(), endpoint);
    expect([message, key.endpoint]).toEqual(['Custom endpoint key added.', endpoint]);
  });
});

describe('adding a key with a test', () => {
  it('stores the key with the result when the test succeeds', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    upstream.answerKey(key, answer.models(['gpt-4o']));
    const stored = await addKey(principal, { key, validate: true });
    expect(stored.test_status).toBe('valid');
    expect(stored.last_tested).not.toBeNull();
  });

  it('stores nothing when the test fails, and answers with the result', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    upstream.answerKey(key, answer.error(401));
    const refused = await errorOf(addKey(principal, { key, validate: true }));
    expect(refused).toMatchObject({
      code: 'key_test_failed',
      status: 422,
      extra: {
        test: { provider: 'openai', status: 'invalid', details: { http_status: 401, billed: false } },
      },
    });
    expect(JSON.stringify(refused)).not.toContain(key);
    expect(await instance.keys.listKeys(principal)).toEqual([]);
    expect(await actionsOf(principal)).toEqual(['key.tested']);
  });

  it('keeps the old key when its replacement fails the test', async () => {
    const principal = createPrincipal();
    const [good, bad] = [randomKey(), randomKey()];
    const { id } = await addKey(principal, { key: good });
    upstream.answerKey(bad, answer.error(401));
    await errorOf(addKey(principal, { key: bad, key_id: id, validate: true }));
    expect((await secretOf(principal, id))?.secret).toBe(good);
  });

  it('calls no provider when the key cannot be stored', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    await addKey(principal, { key });
    const before = upstream.requests.length;
    expect((await errorOf(addKey(principal, { key, validate: true }))).code).toBe('duplicate_key');
    expect((await errorOf(addKey(principal, { key_id: 'abcDEF123456', validate: true }))).code).toBe(
      'key_not_found',
    );
    expect(upstream.requests).toHaveLength(before);
  });
});

describe('testing stored keys', () => {
  it('tests one key, stores the result and writes the audit event', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id } = await addKey(principal, { key });
    upstream.answerKey(key, answer.models(['gpt-4o']));
    const tested = await instance.keys.test(principal, 'openai', id, 'r');
    expect(tested).toMatchObject({
      provider: 'openai',
      key_id: id,
      status: 'valid',
      results: [{ key_id: id }],
    });
    const [listed] = await instance.keys.listKeys(principal);
    expect(listed).toMatchObject({ test_status: 'valid' });
    expect(listed?.last_tested).not.toBeNull();
    expect(await actionsOf(principal)).toEqual(['key.added', 'key.tested']);
    expect(instance.logged()).toContain('"event":"key_tested"');
  });

  it('tests all keys of a provider and answers with the worst result first', async () => {
    const principal = createPrincipal();
    const [good, bad] = [randomKey(), randomKey()];
    const first = await addKey(principal, { key: good });
    const second = await addKey(principal, { key: bad });
    upstream.answerKey(good, answer.models(['gpt-4o']));
    upstream.answerKey(bad, answer.error(401));
    const tested = await instance.keys.test(principal, 'openai', undefined, 'r');
    expect(tested).toMatchObject({ key_id: second.id, status: 'invalid' });
    expect(tested.results.map(({ key_id, status }) => [key_id, status])).toEqual([
      [first.id, 'valid'],
      [second.id, 'invalid'],
    ]);
  });

  it('starts a cooldown for a refused key and ends it for a valid one', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id } = await addKey(principal, { key });
    upstream.answerKey(key, answer.error(401), answer.models(['gpt-4o']));
    await instance.keys.test(principal, 'openai', id, 'r');
    expect((await poolOf(principal))[0]?.cooldownUntil).not.toBeNull();
    await instance.keys.test(principal, 'openai', id, 'r');
    expect((await poolOf(principal))[0]?.cooldownUntil).toBeNull();
  });

  it('stores no status for a key that was replaced during the test', async () => {
    const principal = createPrincipal();
    const key = randomKey();
    const { id } = await addKey(principal, { key });
    const gate = Promise.withResolvers<undefined>();
    upstream.answerKey(key, async (response) => {
      await gate.promise;
      await answer.error(401)(response);
    });
    const requestCount = upstream.requests.length + 1;
    const testing = instance.keys.test(principal, 'openai', id, 'r');
    await upstream.received(requestCount);
    await addKey(principal, { key_id: id });
    gate.resolve(undefined);
    expect((await testing).status).toBe('invalid');
    const [listed] = await instance.keys.listKeys(principal);
    expect(listed).toMatchObject({ test_status: 'untested', last_tested: null });
  });

  it('reports a key that cannot be decrypted without calling the provider', async () => {
    const principal = createPrincipal();
    const { id } = await addKey(principal, {}, otherKeyInstance);
    const before = upstream.requests.length;
    expect(await instance.keys.test(principal, 'openai', id, 'r')).toMatchObject({
      status: 'undecryptable',
      details: { latency_ms: null, http_status: null },
    });
    expect(upstream.requests).toHaveLength(before);
  });

  it('answers 404 without keys, for ids of other users and for unknown providers', async () => {
    const principal = createPrincipal();
    const foreignKey = await addKey(createPrincipal());
    expect((await errorOf(instance.keys.test(principal, 'openai', undefined, 'r'))).code).toBe(
      'key_not_found',
    );
    expect((await errorOf(instance.keys.test(principal, 'openai', foreignKey.id, 'r'))).code).toBe(
      'key_not_found',
    );
    expect((await errorOf(instance.keys.test(principal, 'unknown', undefined, 'r'))).code).toBe(
      'unknown_provider',
    );
  });
});

describe('endpoints', () => {
  it('are checked at most 30 times a minute per user', async () => {
    const principal = createPrincipal();
    for (let count = 0; count < 30; count += 1) {
      await errorOf(addKey(principal, { provider: 'custom', key: 'not fit', endpoint: ENDPOINT }));
    }
    await addKey(principal, { provider: 'custom', endpoint: ENDPOINT });
    const lookups = Array.from({ length: 30 }, (_, count) =>
      errorOf(
        addKey(principal, { provider: 'custom', key_id: 'abcDEF123456', endpoint: `${ENDPOINT}/${count}` }),
      ),
    );
    const codes = (await Promise.all(lookups)).map(({ code }) => code);
    expect(codes.filter((code) => code === 'key_not_found')).toHaveLength(29);
    expect(codes.filter((code) => code === 'rate_limited')).toHaveLength(1);
  });
});
