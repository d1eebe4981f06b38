import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createBrowser, signIn, signInUpToCallback, submitLoginPages } from '../support/browser.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';

let app: IdentityApp;
let user: TestUser;

beforeAll(async () => {
  app = await startIdentityApp();
  user = await createUser({ tier: 'starter' });
});
afterAll(async () => {
  await app.close();
});

async function removeScope(clientId: string, name: string): Promise<void> {
  const admin = await adminClient();
  const [client] = await admin.clients.find({ clientId });
  const id = client?.id ?? '';
  const scopes = await admin.clients.listDefaultClientScopes({ id });
  const clientScopeId = scopes.find((scope) => scope.name === name)?.id ?? '';
  await admin.clients.delDefaultClientScope({ id, clientScopeId });
}

describe("signing in through Keycloak's pages", () => {
  it('creates a session that /api/v1/me accepts, and redirects to the requested address', async () => {
    const browser = createBrowser();
    const callback = await signInUpToCallback(
      browser,
      `${app.publicUrl}/auth/login?return_to=/keys%3Fa%3D1%23b`,
      user,
    );
    const answer = await browser.get(callback);
    expect(answer.status).toBe(303);
    expect(answer.location).toBe(`${app.publicUrl}/keys?a=1#b`);
    const me = await browser.get(`${app.publicUrl}/api/v1/me`);
    expect(me.status).toBe(200);
    expect(me.json()).toEqual({
      id: user.id,
      username: user.username,
      email: user.email,
      name: 'Test User',
      tier: 'starter',
      features: { byok: true, execution_servers: true, local_execution: false },
      organizations: [],
    });
  });

  it('sets a session cookie that is HttpOnly, SameSite=Lax, for the whole site, for 12 hours', async () => {
    const browser = createBrowser();
    const answer = await signIn(browser, app.publicUrl, user);
    const lines = [answer.headers['set-cookie'] ?? []].flat();
    const session = lines.find((line) => line.startsWith('session='));
    expect(session).toMatch(/; Path=\//);
    expect(session).toMatch(/; HttpOnly/);
    expect(session).toMatch(/; SameSite=Lax/);
    const expires = Date.parse(/Expires=([^;]+)/.exec(session ?? '')?.[1] ?? '');
    expect(Math.abs(expires - Date.now() - 12 * 3_600_000)).toBeLessThan(60_000);
    expect(lines.find((line) => line.startsWith('session-login-'))).toMatch(/Expires=Thu, 01 Jan 1970/);
  });

  it('gives a new session id at each sign-in and ends the old one', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const before = browser.clone();
    // Keycloak has a session for this browser, so it redirects without a form.
    const start = await browser.get(`${app.publicUrl}/auth/login`);
    const back = await browser.get(start.location ?? '');
    expect((await browser.get(back.location ?? '')).status).toBe(303);
    expect(browser.cookie('session')).not.toBe(before.cookie('session'));
    expect((await before.get(`${app.publicUrl}/api/v1/me`)).status).toBe(401);
    expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);
  });

  it('lets two tabs of one browser sign in at the same time', async () => {
    const browser = createBrowser();
    const first = await browser.get(`${app.publicUrl}/auth/login?return_to=/one`);
    const second = await signInUpToCallback(browser, `${app.publicUrl}/auth/login?return_to=/two`, user);
    expect((await browser.get(second)).location).toBe(`${app.publicUrl}/two`);
    const back = await browser.get(first.location ?? '');
    expect((await browser.get(back.location ?? '')).location).toBe(`${app.publicUrl}/one`);
  });

  it('stores no plaintext token in the sessions table', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const rows = await app.database.rows(z.object({ sess: z.string() }), 'SELECT sess::text FROM sessions');
    expect(rows.length).toBeGreaterThan(0);
    for (const { sess } of rows) {
      expect(sess).toMatch(/"tokens": "gAAAA/);
      // Every token of Keycloak is a JWT: two JSON parts with a dot between. Ciphertext never matches that.
      expect(sess).not.toMatch(/eyJ[\w-]+\.eyJ/);
    }
  });

  it('expires 12 hours after the sign-in: using the session does not extend it', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    await app.database.run(`UPDATE sessions SET expire = '2100-01-01' WHERE sess ->> 'userId' = $1`, [
      user.id,
    ]);
    expect((await browser.get(`${app.publicUrl}/api/v1/me`)).headers['set-cookie']).toBeUndefined();
    const changed = `SELECT FROM sessions WHERE sess ->> 'userId' = $1 AND expire <> '2100-01-01'`;
    expect(await app.database.run(changed, [user.id])).toBe(0);
  });

  it('refuses to return to another origin, and a max_age that is no number', async () => {
    const hostile = [
      '//evil.example/x',
      '/\\evil.example',
      '/\t/evil.example',
      '/%09/evil.example',
      'https://evil.example/',
      'javascript:alert(1)',
      '/.//evil.example',
      'http://localhost:1@evil.example/',
    ];
    const queries = hostile.map((requested) => new URLSearchParams({ return_to: requested }).toString());
    for (const query of [...queries, 'max_age=soon', 'return_to=/a&return_to=/b']) {
      const json = { accept: 'application/json' };
      const refused = await createBrowser().get(`${app.publicUrl}/auth/login?${query}`, json);
      expect({ query, status: refused.status, location: refused.location }).toEqual({
        ...{ query, status: 400, location: undefined },
      });
      expect(refused.json()).toMatchObject({ code: 'validation_failed' });
    }
    const page = await createBrowser().get(`${app.publicUrl}/auth/login?return_to=//evil.example`);
    expect(page.headers['content-type']).toMatch('text/html');
    expect(page.text).not.toContain('evil.example');
  });

  it('asks for the password again when it was entered longer ago than max_age', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const silent = await browser.get(`${app.publicUrl}/auth/login?max_age=900`);
    // Keycloak has a session for this browser, which is younger.
    expect((await browser.get(silent.location ?? '')).location).toContain('/auth/callback');
    const start = await browser.get(`${app.publicUrl}/auth/login?max_age=0&return_to=/tokens`);
    // Keycloak counts whole seconds.
    const form = await until(
      () => browser.get(start.location ?? ''),
      ({ status }) => status === 200,
    );
    expect(form.text).toContain('kc-form-login');
    const callback = await submitLoginPages(browser, start.location ?? '', user);
    expect((await browser.get(callback)).location).toBe(`${app.publicUrl}/tokens`);
  });

  it('with max_age fails where Keycloak does not say when the password was entered', async () => {
    await using silent = await startIdentityApp();
    await removeScope(silent.webClient.id, 'basic');
    const browser = createBrowser();
    const callback = await signInUpToCallback(browser, `${silent.publicUrl}/auth/login?max_age=900`, user);
    const answer = await browser.get(callback, { accept: 'application/json' });
    expect([answer.status, answer.json()]).toMatchObject([401, { code: 'unauthenticated' }]);
    expect(browser.cookie('session')).toBeUndefined();
    // Without it the sign-in succeeds, and counts as one of long ago.
    await signIn(browser, silent.publicUrl, user);
    const rows = await silent.database.rows(
      z.object({ at: z.string().nullable() }),
      `SELECT sess ->> 'authenticatedAtMs' AS at FROM sessions`,
    );
    expect(rows).toEqual([{ at: null }]);
  });

  it('sends Keycloak the configured callback, not the one of the Host header', async () => {
    const browser = createBrowser();
    const port = new URL(app.publicUrl).port;
    const start = await browser.get(`${app.publicUrl}/auth/login`, { host: `127.0.0.1:${port}` });
    const query = new URL(start.location ?? '').searchParams;
    expect(query.get('redirect_uri')).toBe(`${app.publicUrl}/auth/callback`);
    expect(query.get('code_challenge_method')).toBe('S256');
  });
});

it('in a deployment, every cookie belongs to this host alone, and sign-in and sign-out work', async () => {
  await using deployed = await startIdentityApp({ isDeployed: true });
  const browser = createBrowser();
  const start = await browser.get(`${deployed.publicUrl}/auth/login`);
  const callback = await submitLoginPages(browser, start.location ?? '', user);
  const end = await browser.get(callback);
  // The test browser drops a cookie of this prefix unless it is Secure, has the path `/` and names no domain.
  for (const response of [start, end])
    for (const line of [response.headers['set-cookie'] ?? []].flat()) expect(line).toMatch(/^__Host-session/);
  expect(browser.cookie('__Host-session')).toBeDefined();
  expect((await browser.get(`${deployed.publicUrl}/api/v1/me`)).status).toBe(200);
  const kept = browser.clone();
  expect((await browser.post(`${deployed.publicUrl}/auth/logout`, {})).status).toBe(303);
  expect(browser.cookie('__Host-session')).toBeUndefined();
  expect((await kept.get(`${deployed.publicUrl}/api/v1/me`)).status).toBe(401);
});

describe('an invalid callback', () => {
  it('is refused from a browser that did not start the sign-in', async () => {
    const callback = await signInUpToCallback(createBrowser(), `${app.publicUrl}/auth/login`, user);
    const otherBrowser = createBrowser();
    const answer = await otherBrowser.get(callback, { accept: 'application/json' });
    expect(answer.status).toBe(400);
    expect(answer.json()).toMatchObject({ code: 'validation_failed' });
    expect(otherBrowser.cookie('session')).toBeUndefined();
  });

  it('is refused the second time', async () => {
    const browser = createBrowser();
    const callback = await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, user);
    const replay = browser.clone();
    await browser.get(callback);
    const again = await browser.get(callback);
    expect(again.status).toBe(400);
    expect(again.text).toContain('href="/auth/login"');
    // Even with the cookie of the sign-in: the code has been used.
    expect((await replay.get(callback)).status).toBe(401);
    expect(replay.cookie('session')).toBeUndefined();
  });

  it('is refused with another code, with problem+json for programs', async () => {
    const browser = createBrowser();
    const callback = new URL(await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, user));
    callback.searchParams.set('code', 'a.b.c');
    const answer = await browser.get(callback.href, { accept: 'application/json' });
    expect(answer.status).toBe(401);
    expect(answer.headers['content-type']).toContain('application/problem+json');
    expect(answer.json()).toMatchObject({ code: 'unauthenticated' });
  });

  it('is refused for a user that was disabled during the sign-in', async () => {
    const other = await createUser();
    const browser = createBrowser();
    const callback = await signInUpToCallback(browser, `${app.publicUrl}/auth/login`, other);
    const admin = await adminClient();
    await admin.users.update({ id: other.id }, { enabled: false });
    expect((await browser.get(callback)).status).toBe(401);
    expect(browser.cookie('session')).toBeUndefined();
  });
});

describe('signing out', () => {
  it('ends the session in the app and in Keycloak, and redirects to the home page', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const kept = browser.clone();
    const answer = await browser.post(`${app.publicUrl}/auth/logout`, {});
    expect(answer.status).toBe(303);
    expect(browser.cookie('session')).toBeUndefined();
    expect((await kept.get(`${app.publicUrl}/api/v1/me`)).status).toBe(401);
    const end = await browser.get(answer.location ?? '');
    expect(end.location).toBe(`${app.publicUrl}/`);
    const again = await browser.get((await browser.get(`${app.publicUrl}/auth/login`)).location ?? '');
    expect(again.location).toBeUndefined();
    expect(again.text).toContain('kc-form-login');
  });

  it('redirects to the home page without a session', async () => {
    const answer = await createBrowser().post(`${app.publicUrl}/auth/logout`, {});
    expect(answer.status).toBe(303);
    expect(answer.location).toBe(`${app.publicUrl}/`);
  });

  it('is refused for a cross-site request', async () => {
    const browser = createBrowser();
    await signIn(browser, app.publicUrl, user);
    const answer = await browser.post(`${app.publicUrl}/auth/logout`, {}, { origin: 'https://evil.example' });
    expect(answer.status).toBe(403);
    expect((await browser.get(`${app.publicUrl}/api/v1/me`)).status).toBe(200);
  });
});
