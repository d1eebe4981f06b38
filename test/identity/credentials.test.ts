import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { request } from 'undici';
import { createBrowser, signIn, signInUpToCallback, type Browser } from '../support/browser.ts';
import { until } from '../support/until.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { apiTokens, createApiClient } from '../support/keycloak-tokens.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';

let app: IdentityApp;
let user: TestUser;
let browser: Browser;
let cookie: string;
let apiClient: string;
let otherClient: string;

async function ask(
  path: string,
  headers: Record<string, string | string[]>,
  method: 'GET' | 'POST' = 'GET',
): Promise<{ status: number; code: unknown; body: Record<string, unknown> }> {
  // Each request has a connection of its own: idle ones of a disabled user are closed, also while a request arrives.
  const { statusCode, body } = await request(app.publicUrl + path, { method, headers, reset: true });
  const answer = (await body.json()) as Record<string, unknown>;
  return { status: statusCode, code: answer['code'], body: answer };
}

/** Cookies of two sessions of the user. */
async function twoSessions(): Promise<string> {
  const other = createBrowser();
  await signIn(other, app.publicUrl, user);
  return `${cookie}; ${other.cookieHeader(app.publicUrl)}`;
}

beforeAll(async () => {
  [apiClient, otherClient] = [await createApiClient(), await createApiClient()];
  app = await startIdentityApp({ apiClientIds: [apiClient] });
  user = await createUser({ tier: 'starter' });
  browser = createBrowser();
  await signIn(browser, app.publicUrl, user);
  cookie = browser.cookieHeader(app.publicUrl);
});
afterAll(async () => {
  await app.close();
});

describe('the session cookie', () => {
  it('authenticates a request', async () => {
    expect((await ask('/api/v1/me', { cookie })).body['id']).toBe(user.id);
  });

  const PLANTED = 'session=s%3Aother.sig';

  it.each<[string, (own: string) => string]>([
    ['before', (own) => `${PLANTED}; ${own}`],
    ['after', (own) => `${own}; ${PLANTED}`],
    ['around', (own) => `session=; ${own}; session=%E0%A4%A`],
    ['as a copy beside', (own) => `${own}; ${own}`],
    ['with an altered signature before', (own) => `${own.slice(0, -4)}AAAA; ${own}`],
  ])('counts when cookies that do not verify stand %s it', async (_name, header) => {
    expect((await ask('/api/v1/me', { cookie: header(cookie) })).body['id']).toBe(user.id);
  });

  it('of two sessions is refused with 400, also by the sign-in', async () => {
    const other = createBrowser();
    await signIn(other, app.publicUrl, user);
    for (const header of [
      `${cookie}; ${other.cookieHeader(app.publicUrl)}`,
      `${PLANTED}; ${other.cookieHeader(app.publicUrl)}; ${cookie}`,
    ])
      expect(await ask('/api/v1/me', { cookie: header })).toMatchObject({
        status: 400,
        code: 'validation_failed',
      });
    const callback = await signInUpToCallback(other, `${app.publicUrl}/auth/login`, user);
    other.setCookie(app.publicUrl, 'session', browser.cookie('session') ?? '');
    expect((await other.get(callback)).status).toBe(400);
  });

  it('of a session that was signed out does not count beside the one of a later sign-in', async () => {
    const ended: string[] = [];
    while (ended.length < 2) {
      const other = createBrowser();
      await signIn(other, app.publicUrl, user);
      ended.push(other.cookie('session') ?? '');
      await other.post(`${app.publicUrl}/auth/logout`, {});
    }
    const later = createBrowser();
    const callback = await signInUpToCallback(later, `${app.publicUrl}/auth/login`, user);
    for (const value of ended) later.setCookie(app.publicUrl, 'session', value);
    expect((await later.get(callback)).status).toBe(303);
    const [before = '', after = ''] = ended.map((value) => `session=${value}`);
    // The test browser keeps one cookie of a name and path: that of the sign-in.
    const own = later.cookieHeader(app.publicUrl);
    for (const header of [`${before}; ${own}`, `${own}; ${after}`, `${before}; ${own}; ${after}`])
      expect((await ask('/api/v1/me', { cookie: header })).body['id']).toBe(user.id);
    expect((await ask('/api/v1/me', { cookie: `${before}; ${after}` })).status).toBe(401);
  });

  it('does not keep from signing in when another application has set one', async () => {
    const other = createBrowser();
    other.setCookie(app.publicUrl, 'session', 'of-another-application');
    const callback = await signInUpToCallback(other, `${app.publicUrl}/auth/login`, user);
    other.setCookie(app.publicUrl, 'session', 'of-another-application');
    expect((await other.get(callback)).status).toBe(303);
    const own = other.cookieHeader(app.publicUrl);
    expect((await ask('/api/v1/me', { cookie: `session=of-another-application; ${own}` })).status).toBe(200);
  });

  it.each([
    ['beside one that does not verify', 1],
    ['beside one of another session', 2],
  ])('signs out %s', async (_name, count) => {
    const sessions: string[] = [];
    while (sessions.length < count) {
      const other = createBrowser();
      await signIn(other, app.publicUrl, user);
      sessions.push(other.cookieHeader(app.publicUrl));
    }
    const { statusCode, headers } = await request(`${app.publicUrl}/auth/logout`, {
      method: 'POST',
      headers: { cookie: [PLANTED, ...sessions, PLANTED].join('; ') },
    });
    expect([statusCode, headers['set-cookie']]).toEqual([303, expect.stringMatching(/^session=;/)]);
    for (const ended of sessions) expect((await ask('/api/v1/me', { cookie: ended })).status).toBe(401);
  });

  it.each([
    ['signed with another key', (value: string) => `${value.slice(0, -4)}AAAA`],
    ['of a session that never existed', () => 's%3Aabcdefghijklmnopqrstuvwxyz012345.c2lnbmF0dXJl'],
    ['empty', () => ''],
  ])('is refused with 401 if it is %s', async (_name, change) => {
    const value = change(browser.cookie('session') ?? '');
    expect(await ask('/api/v1/me', { cookie: `session=${value}` })).toMatchObject({
      status: 401,
      code: 'unauthenticated',
    });
  });

  it('is refused without a signature, even with the id of an existing row', async () => {
    const other = createBrowser();
    await signIn(other, app.publicUrl, user);
    const id = /^s:(.+)\./.exec(decodeURIComponent(other.cookie('session') ?? ''))?.[1] ?? '';
    const rows = () => app.database.run('SELECT FROM sessions WHERE sid = $1', [id]);
    expect(await rows()).toBe(1);
    for (const value of [id, `s:${id}`, `s:${id}.`])
      expect((await ask('/api/v1/me', { cookie: `session=${encodeURIComponent(value)}` })).status).toBe(401);
    // After all tests, the databases are searched for values sent as cookies. The id of an existing row would be found,
    // so the row is deleted first.
    await other.post(`${app.publicUrl}/auth/logout`, {});
    expect(await rows()).toBe(0);
  });

  it('is refused for a cross-site write', async () => {
    expect((await ask('/api/v1/write', { cookie }, 'POST')).status).toBe(200);
    expect((await ask('/api/v1/write', { cookie, origin: app.publicUrl }, 'POST')).status).toBe(200);
    for (const headers of [
      { 'sec-fetch-site': 'cross-site' },
      { 'sec-fetch-site': 'same-site' },
      { origin: 'https://evil.example' },
    ])
      expect(await ask('/api/v1/write', { cookie, ...headers }, 'POST')).toMatchObject({
        status: 403,
        code: 'csrf',
      });
  });
});

describe('invalid credentials', () => {
  it.each([
    ['x-user-id', { 'x-user-id': 'admin' }],
    [
      'x-forwarded-user',
      { 'x-forwarded-user': 'admin', 'x-remote-user': 'admin', 'x-auth-request-user': 'admin' },
    ],
    ['an Anthropic key as bearer', { authorization: 'Bearer sk-ant-api03-abcdefghijklmnopqrstuvwxyz' }],
    ['an OpenAI key as bearer', { authorization: 'Bearer sk-abcdefghijklmnopqrstuvwxyz' }],
    ['an x-api-key', { 'x-api-key': 'oc_abcdefghijklmnopqrstuvwxyz' }],
    ['a name and password', { authorization: 'Basic YWRtaW46YWRtaW4=' }],
    ['no credential', {}],
  ])('%s is refused with 401', async (_name, headers) => {
    expect(await ask('/api/v1/me', headers)).toMatchObject({ status: 401, code: 'unauthenticated' });
  });

  it.each([
    ['an Anthropic key as bearer', { authorization: 'Bearer sk-ant-api03-abcdefghijklmnopqrstuvwxyz' }],
    ['an empty Authorization', { authorization: '' }],
    ['an x-api-key', { 'x-api-key': 'x' }],
    ['an empty x-api-key', { 'x-api-key': '' }],
    ['two Authorizations', { authorization: ['Bearer a', 'Bearer b'] }],
  ])('%s is refused even with a valid cookie', async (_name, headers) => {
    expect(await ask('/api/v1/me', { ...headers, cookie })).toMatchObject({
      status: 401,
      code: 'unauthenticated',
    });
  });

  it.each([
    ['an invalid bearer', { authorization: 'Bearer a' }],
    ['an x-api-key', { 'x-api-key': 'x' }],
  ])('%s is refused with 401 even with cookies of two sessions', async (_name, headers) => {
    expect((await ask('/api/v1/me', { ...headers, cookie: await twoSessions() })).status).toBe(401);
  });

  it('x-user-id is ignored if there is a valid cookie', async () => {
    expect((await ask('/api/v1/me', { cookie, 'x-user-id': 'admin' })).body['id']).toBe(user.id);
  });
});

describe('a bearer token of Keycloak', () => {
  it('of a listed client can chat and read keys, and nothing else', async () => {
    const { access_token } = await apiTokens(apiClient, user);
    const headers = { authorization: `Bearer ${access_token}` };
    expect((await ask('/api/v1/me', headers)).body['id']).toBe(user.id);
    expect((await ask('/v1/chat', headers, 'POST')).status).toBe(200);
    expect(await ask('/api/v1/write', headers, 'POST')).toMatchObject({
      status: 403,
      code: 'scope_required',
    });
  });

  it('decides alone, also beside cookies of two sessions', async () => {
    const authorization = `Bearer ${(await apiTokens(apiClient, user)).access_token}`;
    const sessions = await twoSessions();
    expect((await ask('/api/v1/me', { cookie: sessions })).status).toBe(400);
    expect((await ask('/api/v1/me', { cookie: sessions, authorization })).body['id']).toBe(user.id);
  });

  it('of another client of the realm is refused, even with the right audience', async () => {
    const { access_token } = await apiTokens(otherClient, user);
    expect((await ask('/api/v1/me', { authorization: `Bearer ${access_token}` })).status).toBe(401);
  });

  it('is refused if it is an ID or refresh token', async () => {
    const tokens = await apiTokens(apiClient, user);
    for (const token of [tokens.id_token, tokens.refresh_token]) {
      expect(token).toBeDefined();
      expect((await ask('/api/v1/me', { authorization: `Bearer ${token}` })).status).toBe(401);
    }
  });

  it('is refused before its expiry once an administrator signs the user out', async () => {
    const other = await createUser();
    const headers = { authorization: `Bearer ${(await apiTokens(apiClient, other)).access_token}` };
    expect((await ask('/api/v1/me', headers)).status).toBe(200);
    await (await adminClient()).users.logout({ id: other.id });
    await until(async () => (await ask('/api/v1/me', headers)).status === 401);
  });

  it('is refused once its user is disabled', async () => {
    const other = await createUser();
    const headers = { authorization: `Bearer ${(await apiTokens(apiClient, other)).access_token}` };
    expect((await ask('/api/v1/me', headers)).status).toBe(200);
    await (await adminClient()).users.update({ id: other.id }, { enabled: false });
    await until(async () => (await ask('/api/v1/me', headers)).status === 401);
  });
});
