import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createBrowser, signIn, signInUpToCallback, type Browser } from '../support/browser.ts';
import { startCutProxy, type CutProxy } from '../support/cut-proxy.ts';
import { until } from '../support/until.ts';
import { startIdentityApp, type IdentityApp } from '../support/identity-app.ts';
import { blockDatabase } from '../support/database.ts';
import { adminClient, createUser, stack, type TestUser } from '../support/stack.ts';

let proxy: CutProxy;
let app: IdentityApp;
let user: TestUser;
let browser: Browser;

beforeAll(async () => {
  proxy = await startCutProxy(stack.keycloak.url);
  app = await startIdentityApp({ keycloakInternalUrl: proxy.url });
  user = await createUser({ tier: 'starter' });
  browser = createBrowser();
  await signIn(browser, app.publicUrl, user);
});
afterAll(async () => {
  await app.close();
  await proxy.close();
});

const ask = (path: string) => browser.get(app.publicUrl + path, { accept: 'application/json' });

describe('different Keycloak addresses for browsers and for the app', () => {
  it('redirects the browser to one and sends the requests of the app to the other', async () => {
    const start = await ask('/auth/login');
    expect(start.location?.startsWith(stack.keycloak.url)).toBe(true);
    expect((await ask('/api/v1/me')).status).toBe(200);
  });
});

describe('while Keycloak is unavailable', () => {
  it('requests are refused with 503 instead of using an expired user, and work again afterwards', async () => {
    proxy.cut();
    // Same effect as an event or the 10 s limit: there is no fresh cached user.
    app.identity.userCache.invalidate(user.id);
    const answer = await ask('/api/v1/me');
    expect(answer.status).toBe(503);
    expect(answer.json()).toMatchObject({ code: 'keycloak_unavailable' });
    expect(answer.headers['retry-after']).toBeDefined();
    proxy.restore();
    expect((await ask('/api/v1/me')).status).toBe(200);
  });

  it('a cached user is used for at most 10 s', async () => {
    expect((await ask('/api/v1/me')).status).toBe(200);
    proxy.cut();
    await until(async () => (await ask('/api/v1/me')).status === 503, Boolean, 10_000);
    proxy.restore();
  });

  it('a pending sign-in fails with a page that links to a new one, and creates no session', async () => {
    const other = createBrowser();
    const callback = await signInUpToCallback(other, `${app.publicUrl}/auth/login`, user);
    proxy.cut();
    const answer = await other.get(callback);
    expect(answer.status).toBe(503);
    expect(answer.text).toContain('href="/auth/login"');
    const line = app.logLines.find((text) => text.includes('sign-in failed'));
    expect(JSON.parse(line ?? '{}')).toMatchObject({
      ...{ level: 40, code: 'keycloak_unavailable' },
      detail: expect.stringContaining('Keycloak cannot be reached'),
    });
    expect(line).not.toContain('stack');
    expect(other.cookie('session')).toBeUndefined();
    proxy.restore();
  });

  it('signing out of the app still works', async () => {
    const other = createBrowser();
    await signIn(other, app.publicUrl, user);
    const kept = other.clone();
    proxy.cut();
    const answer = await other.post(`${app.publicUrl}/auth/logout`, {});
    expect(answer.status).toBe(303);
    proxy.restore();
    expect((await kept.get(`${app.publicUrl}/api/v1/me`)).status).toBe(401);
  });

  it('changes by an administrator take effect within 10 s after it is available again', async () => {
    const other = await createUser();
    const otherBrowser = createBrowser();
    await signIn(otherBrowser, app.publicUrl, other);
    proxy.cut();
    await (await adminClient()).users.update({ id: other.id }, { enabled: false });
    proxy.restore();
    await until(
      async () =>
        (await app.database.run(`SELECT FROM sessions WHERE sess ->> 'userId' = $1`, [other.id])) === 0,
    );
  });
});

describe('while the database is unavailable', () => {
  it('a session cannot be read: 503 database_unavailable, and it works again afterwards', async () => {
    const restore = await blockDatabase(app.databaseUrl.appUrl);
    const answer = await ask('/api/v1/me');
    await restore();
    expect(answer.status).toBe(503);
    expect(answer.json()).toMatchObject({ code: 'database_unavailable' });
    expect((await ask('/api/v1/me')).status).toBe(200);
  });
});
