import express, { type Express } from 'express';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import supertest from 'supertest';
import { createErrorHandler } from '../../src/http/errors.ts';
import type { Principal, Scope } from '../../src/http/principal.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { mountRoutes } from '../../src/http/route.ts';
import { keyRoutes } from '../../src/keys/routes.ts';
import { createLog } from '../../src/lib/log.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { createDatabase } from '../support/database.ts';
import { createInstance, createPrincipal, randomKey, type Instance } from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';

let instance: Instance;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  instance = createInstance(createInstanceOptions(appUrl));
});

afterAll(() => instance.close());

/** The key routes behind the real guard, for one signed-in user. */
function appFor(principal: Principal): Express {
  const app = express().set('query parser', 'simple');
  app.use(createRequestContext(createLog('silent'), () => undefined));
  mountRoutes(
    app,
    keyRoutes({
      keys: instance.keys,
      // Without a key of the header, each request creates its object.
      idempotency: { createOnce: (_request, { createId, create }) => create(createId()) },
    }),
    {
      authenticate: () => Promise.resolve(principal),
      refuseCrossSite: () => undefined,
      auditTierRefusal: () => Promise.resolve(),
    },
  );
  app.use(createErrorHandler([]));
  return app;
}

const signedIn = (tier: Tier = 'starter') => supertest(appFor(createPrincipal(undefined, tier)));
const bearer = (...scopes: Scope[]) =>
  supertest(appFor({ ...createPrincipal(), credential: 'bearer', scopes: new Set(scopes) }));

const BASE = '/api/v1/byok';

describe('the key routes', () => {
  it('add a key with 201, list, count and delete keys', async () => {
    const http = signedIn();
    const key = randomKey();
    const added = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key, label: '  Mine  ' });
    expect(added.status).toBe(201);
    const body = added.body as { key: { id: string; label: string } };
    expect(Object.keys(body)).toEqual(['message', 'provider', 'provider_name', 'key']);
    expect(body.key.label).toBe('Mine');
    expect(added.text).not.toContain(key);

    const listed = await http.get(`${BASE}/keys`);
    expect(listed.body).toEqual([body.key]);
    const providers = await http.get(`${BASE}/providers`);
    expect((providers.body as { id: string; key_count: number }[])[0]).toMatchObject({
      id: 'openai',
      key_count: 1,
    });
    const stats = await http.get(`${BASE}/stats`);
    expect(stats.body).toMatchObject({ configured_providers: 1, user_tier: 'starter' });

    const deleted = await http.delete(`${BASE}/keys/openai?key_id=${body.key.id}`);
    expect([deleted.status, deleted.body]).toEqual([200, { message: '1 OpenAI key deleted.', deleted: 1 }]);
    expect((await http.delete(`${BASE}/keys/openai`)).body).toMatchObject({
      status: 404,
      code: 'key_not_found',
    });
    expect((await http.get(`${BASE}/keys`)).body).toEqual([]);
  });

  it('accept an empty label as no label, and null for absent members', async () => {
    const http = signedIn();
    const input = { provider: 'openai', key: randomKey(), label: ' ', endpoint: null };
    const added = await http.post(`${BASE}/keys/add`).send(input);
    expect(added.status).toBe(201);
    expect(added.body).toMatchObject({ key: { label: null, endpoint: null } });
  });

  it.each<[string, unknown, string]>([
    ['an empty key id', { key_id: '' }, 'key_id'],
    ['an expiry that has passed', { expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'],
    ['an expiry beyond the year 9999', { expires_at: '9999-12-31T23:59:59-23:59' }, 'expires_at'],
    ['an expiry without an offset', { expires_at: '2090-01-01T00:00:00' }, 'expires_at'],
    ['a test flag that is not boolean', { validate: 'yes' }, 'validate'],
    ['an unknown member', { api_base: 'http://x' }, 'api_base'],
    ['a label of 121 characters', { label: 'x'.repeat(121) }, 'label'],
    ['a label with a line break inside', { label: 'a\nb' }, 'label'],
    ['an endpoint of 257 characters', { endpoint: `https://${'x'.repeat(249)}` }, 'endpoint'],
    ['a key that is not a string', { key: ['sk-x'] }, 'key'],
    ['no provider', { provider: undefined }, 'provider'],
  ])('refuse %s as validation_failed with its path', async (_name, change, path) => {
    const http = signedIn();
    const key = randomKey();
    const refused = await http
      .post(`${BASE}/keys/add`)
      .send({ provider: 'openai', key, ...(change as object) });
    expect(refused.body).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(JSON.stringify((refused.body as { errors: unknown }).errors)).toContain(path);
    expect(refused.text).not.toContain(key);
    expect((await http.get(`${BASE}/keys`)).body).toEqual([]);
  });

  it('replace a key with 200, update it, and refuse a duplicate with its label', async () => {
    const http = signedIn();
    const [key, other] = [randomKey(), randomKey()];
    const added = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key, label: 'Work' });
    const { id } = (added.body as { key: { id: string } }).key;
    const replaced = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key: other, key_id: id });
    expect([replaced.status, replaced.body]).toMatchObject([
      200,
      { message: 'OpenAI key replaced.', key: { id, label: 'Work', key_preview: `sk-…${other.slice(-4)}` } },
    ]);
    const again = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key: other });
    expect([again.status, again.body]).toMatchObject([
      409,
      { code: 'duplicate_key', existing_label: 'Work' },
    ]);
    const changed = await http.patch(`${BASE}/keys/openai/${id}`).send({ label: '', enabled: false });
    expect([changed.status, changed.body]).toMatchObject([200, { id, label: null, enabled: false }]);
    for (const wrong of [
      {},
      { key: other },
      { endpoint: 'https://x.example' },
      { expires_at: '2020-01-01T00:00:00Z' },
    ])
      expect((await http.patch(`${BASE}/keys/openai/${id}`).send(wrong)).status).toBe(400);
    expect([added.text, replaced.text, again.text, changed.text].join()).not.toContain(other);
  });

  it('name a version that each change changes, and obey If-Match', async () => {
    const http = signedIn();
    const add = (json: object, tag?: string) =>
      http
        .post(`${BASE}/keys/add`)
        .set(tag === undefined ? {} : { 'if-match': tag })
        .send({ provider: 'openai', key: randomKey(), ...json });
    const added = await add({ label: 'Work' });
    const { key } = added.body as { key: { id: string; version: string } };
    expect(key.version).toMatch(/^[0-9a-f]{16}$/);
    expect(added.headers['etag']).toBe(`"${key.version}"`);
    const path = `${BASE}/keys/openai/${key.id}`;
    const removal = `${BASE}/keys/openai?key_id=${key.id}`;
    const refusal = { status: 412, code: 'version_mismatch', version: key.version };
    for (const tag of ['"0000000000000000"', `W/"${key.version}"`, key.version, '""']) {
      const refused = [
        await http.patch(path).set('if-match', tag).send({ label: 'x' }),
        await add({ key_id: key.id }, tag),
        await http.delete(removal).set('if-match', tag),
      ];
      for (const { body, headers } of refused)
        expect([body, headers['etag']]).toEqual([expect.objectContaining(refusal), `"${key.version}"`]);
    }
    expect((await http.get(`${BASE}/keys`)).body).toEqual([key]);

    const changed = await http.patch(path).set('if-match', `"0", "${key.version}"`).send({ label: 'Home' });
    const { version: second } = changed.body as { version: string };
    expect([changed.status, changed.headers['etag']]).toEqual([200, `"${second}"`]);
    expect(second).not.toBe(key.version);
    const replaced = await add({ key_id: key.id }, `"${second}"`);
    const { version: third } = (replaced.body as { key: { version: string } }).key;
    expect([replaced.status, replaced.headers['etag']]).toEqual([200, `"${third}"`]);
    expect(third).not.toBe(second);
    expect((await http.get(`${BASE}/keys`)).body).toMatchObject([{ version: third, label: 'Home' }]);
    expect((await http.delete(removal).set('if-match', `"${second}"`)).status).toBe(412);
    expect((await http.delete(removal).set('if-match', `"${third}"`)).status).toBe(200);
  });

  it('refuse If-Match where no key is named, also *', async () => {
    const http = signedIn();
    const input = { provider: 'openai', key: randomKey() };
    const { key } = (await http.post(`${BASE}/keys/add`).send(input)).body as { key: object };
    const refused = [
      await http
        .post(`${BASE}/keys/add`)
        .set('if-match', '*')
        .send({ ...input, key: randomKey() }),
      await http.delete(`${BASE}/keys/openai`).set('if-match', '*'),
    ];
    for (const { body } of refused)
      expect(body).toMatchObject({
        status: 400,
        code: 'validation_failed',
        detail: expect.stringContaining('key_id'),
      });
    expect((await http.get(`${BASE}/keys`)).body).toEqual([key]);
  });

  it('test a key, and do not store a key that fails the requested test', async () => {
    const http = signedIn();
    const input = { provider: 'custom', key: randomKey(), endpoint: 'https://llm.example.test/v1' };
    // The host name does not lead to a server.
    const refused = await http.post(`${BASE}/keys/add`).send({ ...input, validate: true });
    expect([refused.status, refused.body]).toMatchObject([
      422,
      {
        code: 'key_test_failed',
        test: { provider: 'custom', details: { http_status: null, billed: false } },
      },
    ]);
    expect((await http.get(`${BASE}/keys`)).body).toEqual([]);
    const { body } = (await http.post(`${BASE}/keys/add`).send(input)) as { body: { key: { id: string } } };
    const tested = await http.post(`${BASE}/keys/test/custom?key_id=${body.key.id}`);
    expect([tested.status, tested.body]).toMatchObject([
      200,
      { provider: 'custom', key_id: body.key.id, results: [{ key_id: body.key.id }] },
    ]);
    expect(Object.keys(tested.body as object).sort()).toEqual(
      ['details', 'key_id', 'message', 'provider', 'results', 'status'].sort(),
    );
    const withoutKeys = await http.post(`${BASE}/keys/test/openai`);
    expect([withoutKeys.status, (withoutKeys.body as { code: string }).code]).toEqual([404, 'key_not_found']);
  });

  it.each(['key_id=', 'key_id=a&key_id=b', 'keyid=abcDEF123456', 'key_id[]=abcDEF123456', 'all'])(
    'never read a mistyped query as "delete all": ?%s',
    async (query) => {
      const http = signedIn();
      await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key: randomKey() });
      const refused = await http.delete(`${BASE}/keys/openai?${query}`);
      expect(refused.body).toMatchObject({ status: 400, code: 'validation_failed' });
      expect((await http.get(`${BASE}/keys`)).body).toHaveLength(1);
    },
  );

  it.each<[string, unknown, number, string]>([
    ['an unknown provider', { provider: 'unknown', key: 'x' }, 404, 'unknown_provider'],
    ['a key with a blank', { provider: 'openai', key: 'sk-1 2' }, 400, 'invalid_key_format'],
    [
      "another provider's key",
      { provider: 'openai', key: `sk-or-v1-${'0'.repeat(32)}` },
      400,
      'wrong_provider_key',
    ],
    ['a key that is too long', { provider: 'openai', key: `sk-${'a'.repeat(2000)}` }, 400, 'key_too_long'],
  ])('refuse %s with its error code', async (_name, body, status, code) => {
    const refused = await signedIn()
      .post(`${BASE}/keys/add`)
      .send(body as object);
    expect(refused.body).toMatchObject({ status, code });
  });

  it.each<Tier>(['free', 'trial'])('let tier %s read and delete, but not add', async (tier) => {
    const http = signedIn(tier);
    const refused = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key: randomKey() });
    expect(refused.body).toMatchObject({
      status: 403,
      code: 'tier_required',
      required_tier: 'starter',
      current_tier: tier,
    });
    for (const path of ['providers', 'keys', 'stats'])
      expect((await http.get(`${BASE}/${path}`)).status).toBe(200);
    expect((await http.delete(`${BASE}/keys/openai`)).body).toMatchObject({ code: 'key_not_found' });
  });

  it('delete all keys of a provider only after a recent sign-in, and a single one at any time', async () => {
    const principal = createPrincipal();
    const [http, stale] = [
      supertest(appFor(principal)),
      supertest(appFor({ ...principal, authenticatedAtMs: Date.now() - 16 * 60_000 })),
    ];
    const ids: string[] = [];
    for (const key of [randomKey(), randomKey()]) {
      const added = await http.post(`${BASE}/keys/add`).send({ provider: 'openai', key });
      ids.push((added.body as { key: { id: string } }).key.id);
    }
    const refused = await stale.delete(`${BASE}/keys/openai`);
    expect([refused.status, refused.body]).toMatchObject([403, { code: 'reauth_required' }]);
    expect((await http.get(`${BASE}/keys`)).body).toHaveLength(2);
    expect((await stale.delete(`${BASE}/keys/openai?key_id=${ids[0]}`)).status).toBe(200);
    expect((await http.delete(`${BASE}/keys/openai`)).body).toMatchObject({ deleted: 1 });
  });

  it('let a bearer token with keys:read read, and no bearer token write', async () => {
    const reader = bearer('keys:read', 'chat');
    for (const path of ['providers', 'keys', 'stats']) {
      expect((await reader.get(`${BASE}/${path}`)).status).toBe(200);
      expect((await bearer('chat').get(`${BASE}/${path}`)).body).toMatchObject({ code: 'scope_required' });
    }
    const add = await reader.post(`${BASE}/keys/add`).send({ provider: 'openai', key: randomKey() });
    expect(add.body).toMatchObject({ status: 403, code: 'scope_required' });
    expect((await reader.delete(`${BASE}/keys/openai`)).body).toMatchObject({ code: 'scope_required' });
  });
});
