import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { startApp, type TestApp } from '../support/app.ts';
import { setSignInAge } from '../support/sign-in-age.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { bearer, createToken } from '../support/token.ts';
import { until } from '../support/until.ts';

let app: TestApp;
let user: TestUser;
let session: string;
let owner: pg.Client;

beforeAll(async () => {
  app = await startApp();
  user = await createUser({ tier: 'free' });
  session = await app.signIn(user);
  owner = new pg.Client({ connectionString: app.ownerDatabaseUrl });
  await owner.connect();
});
afterAll(async () => {
  await owner.end();
  await app.stop();
});

const BASE = '/api/v1/tokens';
const create = (json: unknown, own = session) => app.call(BASE, { method: 'POST', session: own, json });
const list = async (own = session) =>
  (await (await app.call(BASE, { session: own })).json()) as Record<string, unknown>[];
const revoke = (id: string, own = session) => app.call(`${BASE}/${id}`, { method: 'DELETE', session: own });
const me = async (headers: Record<string, string>) => (await app.call('/api/v1/me', { headers })).status;
const signInOther = async () => app.signIn(await createUser({ tier: 'free' }));

describe('the API of tokens', () => {
  it('creates a token for a user of any tier, shows it once, lists it without, and revokes it', async () => {
    const { id, token } = await createToken(app, session, {
      name: ' My laptop ',
      scopes: ['chat', 'keys:read', 'chat'],
      models: ['openai/gpt-4o', 'demo/*'],
      key_ids: ['abcDEF123456'],
      expires_at: '2090-01-01T00:00:00+01:00',
    });
    const view = {
      id,
      name: 'My laptop',
      prefix: token.slice(0, 7),
      scopes: ['chat', 'keys:read'],
      models: ['openai/gpt-4o', 'demo/*'],
      key_ids: ['abcDEF123456'],
      limits: null,
      created_at: expect.stringMatching(/Z$/),
      expires_at: '2089-12-31T23:00:00.000Z',
      ...{ last_used_at: null, last_client: null, last_status: null },
    };
    expect(await list()).toEqual([view]);
    expect(await me(bearer(token))).toBe(200);
    expect(await me({ 'x-api-key': token })).toBe(200);
    expect((await revoke(id)).status).toBe(200);
    expect(await list()).toEqual([]);
    expect([await me(bearer(token)), await me({ 'x-api-key': token })]).toEqual([401, 401]);
    expect((await revoke(id)).status).toBe(404);
  });

  it.each<[string, unknown, string]>([
    ['limits, which are not supported yet', { limits: [] }, 'limits'],
    ['an unknown member', { admin: true }, 'admin'],
    ['no name', { name: ' ' }, 'name'],
    ['a name with a hidden character', { name: 'a\u202eb' }, 'name'],
    ['no scope', { scopes: [] }, 'scopes'],
    ['an unknown scope', { scopes: ['admin'] }, 'scopes.0'],
    ['no model in the list of models', { models: [] }, 'models'],
    ['a model without a provider', { models: ['gpt-4o'] }, 'models.0'],
    ['a pattern with * in the middle', { models: ['openai/*-mini'] }, 'models.0'],
    ['no key in the list of keys', { key_ids: [] }, 'key_ids'],
    ['an expiry that has passed', { expires_at: '2020-01-01T00:00:00Z' }, 'expires_at'],
  ])('refuses %s and names the member', async (_name, change, path) => {
    const response = await create({ name: 'x', scopes: ['chat'], ...(change as object) });
    const problem = (await response.json()) as { code: string; errors: unknown };
    expect([response.status, problem.code]).toEqual([400, 'validation_failed']);
    expect(JSON.stringify(problem.errors)).toContain(path);
  });

  it('refuses creation by another site', async () => {
    const headers = { 'sec-fetch-site': 'cross-site' };
    const json = { name: 'x', scopes: ['chat'] };
    const response = await app.call(BASE, { method: 'POST', session, json, headers });
    expect([response.status, await response.json()]).toMatchObject([403, { code: 'csrf' }]);
  });

  it('needs a password of the last 15 minutes to create one, and for nothing else', async () => {
    const other = await createUser({ tier: 'free' });
    const own = await app.signIn(other);
    const { id } = await createToken(app, own);
    for (const minutes of [16, null]) {
      await setSignInAge(app, other.id, minutes);
      const refused = await create({ name: 'x', scopes: ['chat'] }, own);
      expect([refused.status, await refused.json()]).toMatchObject([
        403,
        { code: 'reauth_required', login_url: '/auth/login?max_age=900&return_to=/' },
      ]);
    }
    expect(await list(own)).toMatchObject([{ id }]);
    expect((await revoke(id, own)).status).toBe(200);
    await setSignInAge(app, other.id, 14);
    await createToken(app, own);
  });

  it('shows and revokes no token of another user', async () => {
    const other = await signInOther();
    const { id, token } = await createToken(app, session);
    expect(await list(other)).toEqual([]);
    expect((await revoke(id, other)).status).toBe(404);
    expect(await me(bearer(token))).toBe(403); // The scope chat: it is still valid.
    await revoke(id);
  });

  it('refuses the 51st token that has not expired, also of requests at the same time', async () => {
    const other = await signInOther();
    const codes: number[] = [];
    for (let round = 0; round < 4; round += 1)
      codes.push(
        ...(await Promise.all(
          Array.from(
            { length: 15 },
            async () => (await create({ name: 'x', scopes: ['chat'] }, other)).status,
          ),
        )),
      );
    expect(codes.filter((code) => code === 201)).toHaveLength(50);
    const refused = await create({ name: 'x', scopes: ['chat'] }, other);
    expect([refused.status, await refused.json()]).toMatchObject([409, { code: 'token_limit' }]);
    const [first] = await list(other);
    await owner.query('UPDATE personal_tokens SET expires_at = now() WHERE id = $1', [first?.['id']]);
    expect((await create({ name: 'x', scopes: ['chat'] }, other)).status).toBe(201);
  });

  it('writes audit events that name the token by its id', async () => {
    const other = await signInOther();
    const { id } = await createToken(app, other);
    await revoke(id, other);
    const { data } = (await (await app.call('/api/v1/audit', { session: other })).json()) as {
      data: { action: string; object: string }[];
    };
    expect(data.slice(0, 2).map(({ action, object }) => [action, object])).toEqual([
      ['token.revoked', `token:${id}`],
      ['token.created', `token:${id}`],
    ]);
  });
});

describe('the tokens of a user', () => {
  it('are revoked after an administrator deletes the user', async () => {
    const other = await createUser({ tier: 'free' });
    await createToken(app, await app.signIn(other));
    const countTokens = async () =>
      (await owner.query('SELECT FROM personal_tokens WHERE owner = $1', [`user:${other.id}`])).rowCount;
    expect(await countTokens()).toBe(1);
    await (await adminClient()).users.del({ id: other.id });
    await until(countTokens, (count) => count === 0);
  });
});

describe('the use of a token', () => {
  it('is written with client and status, at most once a minute', async () => {
    const other = await signInOther();
    const { token, id } = await createToken(app, other);
    const ask = (agent: string) =>
      app.call('/v1/models', { headers: { ...bearer(token), 'user-agent': agent } });
    await (await ask('first-client/1.0')).text();
    const [view] = await until(
      () => list(other),
      ([one]) => one?.['last_used_at'] !== null,
    );
    expect(view).toMatchObject({ last_client: 'first-client/1.0', last_status: 200 });
    await (await ask('second-client/1.0')).text();
    expect(await list(other)).toEqual([view]);
    // Another process would write again after a minute, and not before.
    const write = `UPDATE personal_tokens SET last_used_at = now() - interval '2 minutes' WHERE id = $1`;
    await owner.query(write, [id]);
    await (await ask('third-client/1.0')).text();
    expect((await list(other))[0]).toMatchObject({ last_client: 'first-client/1.0' });
  });

  it('shows no client that contains a token', async () => {
    const other = await signInOther();
    const { token } = await createToken(app, other);
    const headers = { ...bearer(token), 'user-agent': `curl ${token}` };
    await (await app.call('/v1/models', { headers })).text();
    const used = await until(
      () => list(other),
      ([one]) => one?.['last_used_at'] !== null,
    );
    expect(used[0]).toMatchObject({ last_client: null });
  });
});

describe('a token in an address', () => {
  const encoded = (text: string) =>
    Array.from(text, (each) => `%${each.charCodeAt(0).toString(16)}`).join('');

  it.each<[string, (token: string) => string]>([
    ['the query', (token) => `/v1/models?api_key=${token}`],
    ['the query of an unknown path', (token) => `/nowhere?x=${token}`],
    ['the path', (token) => `/v1/${token}/models`],
    ['a percent-encoded query', (token) => `/v1/models?key=${encoded(token)}`],
    [
      'a query that is encoded twice',
      (token) => `/auth/login?return_to=${encodeURIComponent(encoded(token))}`,
    ],
  ])('in %s is refused with 400 and never logged', async (_name, toPath) => {
    const { token, id } = await createToken(app, session);
    const response = await app.call(toPath(token), { headers: bearer(token) });
    const text = await response.text();
    expect(response.status).toBe(400);
    expect(text).toContain('validation_failed');
    expect(text).not.toContain(token);
    expect(app.logs()).not.toContain(token.slice(7));
    await revoke(id);
  });
});

describe('the database', () => {
  it('stores the SHA-256 and the shown prefix, and nothing else of a token', async () => {
    const { token, id } = await createToken(app, session);
    const { rows } = await owner.query<{ row: string }>(
      'SELECT to_jsonb(t)::text AS row FROM personal_tokens t WHERE id = $1',
      [id],
    );
    expect(rows[0]?.row).toContain('token_sha256');
    expect(rows[0]?.row).not.toContain(token.slice(7, 15));
    await revoke(id);
  });

  it("lets the app's role change the last use of a token, and nothing else", async () => {
    const asApp = new pg.Client({ connectionString: app.databaseUrl });
    await asApp.connect();
    await asApp.query(`SELECT set_config('ops_center.owner', $1, false)`, [`user:${user.id}`]);
    for (const column of ['scopes', 'models', 'key_ids', 'expires_at', 'token_sha256', 'owner'])
      await expect(asApp.query(`UPDATE personal_tokens SET ${column} = NULL`)).rejects.toThrow(
        'permission denied',
      );
    await asApp.end();
  });
});
