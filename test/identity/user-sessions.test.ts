import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { request } from 'undici';
import { z } from 'zod';
import { createBrowser, signIn, signInUpToCallback, type Browser } from '../support/browser.ts';
import { startCutProxy, type CutProxy } from '../support/cut-proxy.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { createUser, stack, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';

/** Two processes on one database. The first one can be cut off from Keycloak. */
let proxy: CutProxy;
let one: IdentityApp;
let two: IdentityApp;

beforeAll(async () => {
  proxy = await startCutProxy(stack.keycloak.url);
  one = await startIdentityApp({ keycloakInternalUrl: proxy.url });
  two = await startIdentityApp({ sharedWith: one });
});
afterAll(async () => {
  await two.close();
  await one.close();
  await proxy.close();
});

const CLIENT = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';

/** A browser of the user, signed in at the first process. */
async function openBrowser(user: TestUser): Promise<Browser> {
  const browser = createBrowser();
  const callback = await signInUpToCallback(browser, `${one.publicUrl}/auth/login`, user);
  await browser.get(callback, { 'user-agent': CLIENT });
  return browser;
}

/** Browsers with sessions of their own and one session of Keycloak. */
async function openBrowsersOfOneSignIn(user: TestUser): Promise<[Browser, Browser]> {
  const first = createBrowser();
  const callback = await signInUpToCallback(first, `${one.publicUrl}/auth/login`, user);
  const second = first.clone();
  await first.get(callback);
  const start = await second.get(`${one.publicUrl}/auth/login`);
  await second.get((await second.get(start.location ?? '')).location ?? '');
  return [first, second];
}

async function call(method: 'GET' | 'DELETE', browser: Browser, path = '', app = one) {
  const url = `${app.publicUrl}/api/v1/sessions${path}`;
  const { statusCode, headers, body } = await request(url, {
    method,
    headers: { cookie: browser.cookieHeader(url) },
  });
  return { status: statusCode, headers, body: (await body.json()) as Record<string, unknown> };
}

async function list(browser: Browser, app = one) {
  const { status, body } = await call('GET', browser, '', app);
  expect(status).toBe(200);
  return body as unknown as { id: string; current: boolean; [member: string]: unknown }[];
}

const otherThanCurrent = async (browser: Browser) =>
  (await list(browser)).filter(({ current }) => !current).map(({ id }) => id);
const me = async (browser: Browser, app = one) =>
  (await browser.get(`${app.publicUrl}/api/v1/me`, { accept: 'application/json' })).status;
/** Whether Keycloak would sign the browser in without a password. */
async function hasKeycloakSession(browser: Browser): Promise<boolean> {
  const start = await browser.clone().get(`${one.publicUrl}/auth/login`);
  return (await browser.clone().get(start.location ?? '')).location !== undefined;
}

/** Objects of the audit events `session.ended` of a user. */
async function listAudited(user: TestUser): Promise<string[]> {
  const rows = await one.database.withOwner(`user:${user.id}`, (sql) =>
    sql.rows(
      z.object({ object: z.string() }),
      `SELECT object FROM audit_events WHERE action = 'session.ended' ORDER BY object`,
    ),
  );
  return rows.map(({ object }) => object);
}

describe('the sessions of a user', () => {
  it('are listed without those of other users, and without the secret of any', async () => {
    const user = await createUser();
    const [browser, second] = [await openBrowser(user), await openBrowser(user)];
    const stranger = await openBrowser(await createUser());
    const sessions = await list(browser);
    const time = expect.stringMatching(/^\d{4}-.*Z$/);
    const view = { id: expect.any(String), created_at: time, last_used_at: time, client: CLIENT };
    expect(sessions.toSorted((a, b) => Number(b.current) - Number(a.current))).toEqual([
      { ...view, current: true },
      { ...view, current: false },
    ]);
    expect((await list(second)).map(({ id }) => id).toSorted()).toEqual(
      sessions.map(({ id }) => id).toSorted(),
    );
    const text = JSON.stringify(sessions);
    for (const cookie of [browser.cookie('session') ?? '', second.cookie('session') ?? ''])
      expect(text).not.toContain(decodeURIComponent(cookie).slice(2, 22));
    expect(await list(stranger)).toHaveLength(1);
  });

  it('are invisible in a transaction of another owner', async () => {
    const user = await createUser();
    await openBrowser(user);
    const count = (owner: `user:${string}`) =>
      one.database.withOwner(owner, (sql) => sql.run('SELECT FROM sessions'));
    expect(await count(`user:${user.id}`)).toBe(1);
    expect(await count('user:another')).toBe(0);
    const remove = (sql: { run(text: string): Promise<number> }) => sql.run('DELETE FROM sessions');
    expect(await one.database.withOwner('user:another', remove)).toBe(0);
  });

  it('show their last use, written at most once a minute', async () => {
    const user = await createUser();
    const browser = await openBrowser(user);
    const readLastUse = async () => (await list(browser))[0]?.['last_used_at'];
    const atSignIn = await readLastUse();
    expect(await readLastUse()).toBe(atSignIn);
    await one.database.run(
      `UPDATE sessions SET last_used_at = now() - interval '2 minutes' WHERE owner = $1`,
      [`user:${user.id}`],
    );
    const later = await readLastUse();
    expect(Date.parse(String(later))).toBeGreaterThan(Date.parse(String(atSignIn)));
    expect(await readLastUse()).toBe(later);
  });
});

describe('ending one session', () => {
  it('ends it in all processes within 1 s, with its streams and its session of Keycloak', async () => {
    const user = await createUser();
    const [browser, other] = [await openBrowser(user), await openBrowser(user)];
    const url = `${two.publicUrl}/api/v1/work`;
    const work = await request(url, { headers: { cookie: other.cookieHeader(url) } });
    expect([await me(other), await me(other, two)]).toEqual([200, 200]);
    const [id = ''] = await otherThanCurrent(browser);
    const startedAt = performance.now();
    expect(await call('DELETE', browser, `/${id}`)).toMatchObject({
      status: 200,
      body: { message: '1 session ended.', ended: 1, keycloak_ended: true },
    });
    expect([await me(other), await me(other, two)]).toEqual([401, 401]);
    expect(await work.body.text()).toContain('signed_out');
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    expect([await hasKeycloakSession(other), await hasKeycloakSession(browser)]).toEqual([false, true]);
    expect(await me(browser)).toBe(200);
    expect(await listAudited(user)).toEqual([`session:${id}`]);
    expect((await call('DELETE', browser, `/${id}`)).status).toBe(404);
  });

  it('ends, counts and audits all sessions of its session of Keycloak', async () => {
    const user = await createUser();
    const browser = await openBrowser(user);
    const shared = await openBrowsersOfOneSignIn(user);
    const ids = await otherThanCurrent(browser);
    expect(ids).toHaveLength(2);
    expect((await call('DELETE', browser, `/${ids[0]}`)).body).toMatchObject({
      ...{ message: '2 sessions ended.', ended: 2, keycloak_ended: true },
    });
    expect(await Promise.all(shared.map((each) => me(each)))).toEqual([401, 401]);
    expect(await listAudited(user)).toEqual(ids.map((id) => `session:${id}`).toSorted());
    expect(await me(browser)).toBe(200);
  });

  it('removes the cookie of the request when it ends its session', async () => {
    const browser = await openBrowser(await createUser());
    const [{ id } = { id: '' }] = await list(browser);
    const { headers } = await call('DELETE', browser, `/${id}`);
    expect(String(headers['set-cookie'])).toMatch(/^session=; .*Expires=Thu, 01 Jan 1970/);
    expect(await me(browser)).toBe(401);
  });

  it("does not find another user's", async () => {
    const [browser, stranger] = [
      await openBrowser(await createUser()),
      await openBrowser(await createUser()),
    ];
    const [{ id } = { id: '' }] = await list(stranger);
    const { status, body } = await call('DELETE', browser, `/${id}`);
    expect([status, body]).toMatchObject([404, { code: 'not_found' }]);
    expect(await me(stranger)).toBe(200);
  });

  it('works while Keycloak is unavailable, and says that its own session may go on', async () => {
    const user = await createUser();
    const [browser, other] = [await openBrowser(user), await openBrowser(user)];
    const [id = ''] = await otherThanCurrent(browser);
    proxy.cut();
    const { status, body } = await call('DELETE', browser, `/${id}`);
    proxy.restore();
    expect([status, body]).toMatchObject([200, { ended: 1, keycloak_ended: false }]);
    expect(body['message']).toContain('Keycloak did not confirm');
    expect(await me(other)).toBe(401);
    expect(await hasKeycloakSession(other)).toBe(true);
  });
});

describe('ending all sessions', () => {
  it('ends those of the user, the current one too, and no others', async () => {
    const user = await createUser();
    const browsers = [await openBrowser(user), await openBrowser(user), await openBrowser(user)];
    const stranger = await openBrowser(await createUser());
    const [browser = createBrowser()] = browsers;
    const ids = (await list(browser)).map(({ id }) => id);
    const { headers, body } = await call('DELETE', browser);
    expect(body).toEqual({ message: '3 sessions ended.', ended: 3, keycloak_ended: true });
    expect(String(headers['set-cookie'])).toMatch(/^session=; /);
    for (const each of browsers) {
      await until(async () => (await me(each, two)) === 401, Boolean, 1_000);
      expect([await me(each), await hasKeycloakSession(each)]).toEqual([401, false]);
    }
    expect(await listAudited(user)).toEqual(ids.map((id) => `session:${id}`).toSorted());
    expect(await me(stranger)).toBe(200);
    // The user can sign in again at once.
    await signIn(browser, one.publicUrl, user);
    expect(await me(browser)).toBe(200);
  });

  it('counts each session once when two requests end them', async () => {
    const user = await createUser();
    const [browser, other] = [await openBrowser(user), await openBrowser(user)];
    const results = await Promise.all([call('DELETE', browser), call('DELETE', other)]);
    const ended = results.map(({ status, body }) => (status === 200 ? Number(body['ended']) : 0));
    expect(ended.reduce((sum, count) => sum + count)).toBe(2);
    expect(await listAudited(user)).toHaveLength(2);
  });
});
