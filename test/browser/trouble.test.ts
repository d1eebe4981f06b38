import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser, BrowserContext, Route } from 'playwright-core';
import { startServer, type RunningServer } from '../../src/server.ts';
import { createLog } from '../../src/lib/log.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, fillInLogin, launchChromium } from '../support/page/chromium.ts';
import { comeBackToTab, openPage, takeStatusLines } from '../support/page/open-page.ts';
import { createUser, type TestUser } from '../support/stack.ts';

const AWAY = 'The server cannot be reached.';

describeInBrowser('trouble', () => {
  let app: TestApp;
  let browser: Browser;
  let users: TestUser[];
  let sessions: string[];
  let restarted: RunningServer | undefined;
  beforeAll(async () => {
    [app, browser, ...users] = await Promise.all([
      startApp(),
      launchChromium(),
      createUser({ tier: 'starter' }),
      createUser({ tier: 'free' }),
    ]);
    sessions = await Promise.all(users.map((user) => app.signIn(user)));
  });
  afterAll(async () => {
    await browser.close();
    await restarted?.stop();
    await app.stop();
  });

  const [first, second] = [0, 1];
  const open = (path: string, options: { user?: number; context?: BrowserContext } = {}) => {
    const session = sessions[options.user ?? first];
    return openPage(browser, app, {
      path,
      ...(session === undefined ? {} : { session }),
      ...(options.context === undefined ? {} : { context: options.context }),
    });
  };
  const usernameOf = (index: number) => users[index]?.username ?? '';

  it('an address that does not exist leads to the start page; back and forward name and focus each page', async () => {
    const opened = await open('/nothing/here');
    const { page } = opened;
    expect(await page.title()).toBe('This page does not exist · Ops Center');
    await expectAccessible(page);
    await tabTo(page, 'Go to the start page');
    await page.keyboard.press('Enter');
    const start = page.getByRole('heading', { name: 'First steps', level: 1 });
    await start.waitFor();
    expect(await page.locator('*:focus').innerText()).toBe('First steps');
    await page.goBack();
    await page.getByRole('heading', { name: 'This page does not exist' }).waitFor();
    await page.goForward();
    await start.waitFor();
    expect(await page.title()).toBe('First steps · Ops Center');
    expect(await page.locator('*:focus').innerText()).toBe('First steps');
    expect(takeStatusLines(opened, 404)).toBe(1);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('a device that goes offline is a notice on the page, which goes on by itself', async () => {
    const opened = await open('/settings');
    const { page } = opened;
    const notice = page.getByText('This device is offline.');
    await page.context().setOffline(true);
    await comeBackToTab(page);
    await notice.waitFor();
    await expectAccessible(page);
    await page.context().setOffline(false);
    await notice.waitFor({ state: 'hidden' });
    takeStatusLines(opened, 'no response');
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('an open page waits for a server that is away, and reads again when it is back', async () => {
    const opened = await open('/settings');
    const { page } = opened;
    await app.stop();
    await comeBackToTab(page);
    await page.getByText(AWAY).waitFor();
    expect(await page.getByRole('main').innerText()).toContain(usernameOf(first));
    const read = page.waitForResponse((response) => response.url().endsWith('/api/v1/me') && response.ok());
    restarted = await startServer(app.config, { log: createLog('silent') });
    await read;
    await page.getByText(AWAY).waitFor({ state: 'hidden' });
    takeStatusLines(opened, 'no response');
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('a page whose first read fails says so, and appears once the server answers', async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const refuse = (route: Route) => route.fulfill({ status: 503, body: 'upstream connect error' });
    await context.route('**/api/v1/me', refuse);
    const opened = await open('/settings', { context });
    const { page } = opened;
    await page.getByRole('heading', { name: 'The server is not ready', level: 1 }).waitFor();
    await expectAccessible(page);
    await context.unroute('**/api/v1/me', refuse);
    await page.getByRole('heading', { name: 'Settings' }).waitFor();
    takeStatusLines(opened, 503);
    expect(opened.complaints).toEqual([]);
    await context.close();
  });

  it('a slow network shows that something is loading, and no half page', async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    let release: () => void = () => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    await context.route('**/api/v1/me', async (route) => {
      await released;
      await route.continue();
    });
    const opening = open('/settings', { context });
    const page = context.pages()[0] ?? (await context.waitForEvent('page'));
    await page.getByRole('status').getByText('Loading').waitFor();
    expect(await page.getByRole('navigation').count()).toBe(0);
    release();
    expect((await opening).complaints).toEqual([]);
    await context.close();
  });

  it('an ended session asks to sign in over the page, comes back to it, and keeps drafts of this user alone', async () => {
    const opened = await open('/settings?from=here');
    const { page } = opened;
    const drafts = [`draft:${users[first]?.id ?? ''}:form`, `draft:${users[second]?.id ?? ''}:form`];
    for (const name of drafts) await page.evaluate(`sessionStorage.setItem(${JSON.stringify(name)}, '{}')`);
    await page.context().clearCookies();
    await comeBackToTab(page);
    const dialog = page.getByRole('dialog', { name: 'Your session has ended' });
    await dialog.waitFor();
    expect(await page.getByText(usernameOf(first)).count()).toBeGreaterThan(0);
    await expectAccessible(page);
    expect(await page.locator('*:focus').innerText()).toBe('Sign in again');
    await page.keyboard.press('Enter');
    await fillInLogin(page, users[first] ?? { id: '', username: '', password: '', email: '' });
    await page.waitForURL(`${app.url}/settings?from=here`);
    await page.getByRole('heading', { name: 'Settings' }).waitFor();
    expect(
      await page.evaluate('Object.keys(sessionStorage).filter((key) => key.startsWith("draft:"))'),
    ).toEqual([drafts[first]]);
    expect(takeStatusLines(opened, 401)).toBe(1);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('signing in again in another tab is enough', async () => {
    const opened = await open('/settings');
    const context = opened.page.context();
    await context.clearCookies();
    await comeBackToTab(opened.page);
    const dialog = opened.page.getByRole('dialog', { name: 'Your session has ended' });
    await dialog.waitFor();
    await open('/settings', { context });
    await dialog.waitFor({ state: 'hidden' });
    await context.close();
  });

  it('a second user of the same browser sees nothing of the first', async () => {
    const { page } = await open('/settings');
    const context = page.context();
    await page.evaluate(
      `sessionStorage.setItem('draft:${users[first]?.id ?? ''}:form', '{"label":"of the first"}')`,
    );
    await page.getByText(usernameOf(first)).first().waitFor();
    await open('/settings', { context, user: second });
    await page.getByText(usernameOf(second)).first().waitFor();
    const left = await page.evaluate('document.documentElement.outerHTML + JSON.stringify(sessionStorage)');
    expect(left).not.toContain(usernameOf(first));
    expect(left).not.toContain('of the first');
    await context.close();
  });

  it('signing out in one tab signs out the others', async () => {
    const user = await createUser({ tier: 'starter' });
    const session = await app.signIn(user);
    const opened = await openPage(browser, app, { path: '/settings', session });
    const context = opened.page.context();
    const { page } = await openPage(browser, app, { path: '/settings', context });
    await page.getByRole('banner').getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('link', { name: 'Sign in' }).waitFor();
    await opened.page.getByRole('link', { name: 'Sign in' }).waitFor();
    await context.close();
  });

  it('two session cookies are explained, with a way out', async () => {
    const opened = await open('/settings');
    const { page } = opened;
    await page
      .context()
      .addCookies([{ name: 'session', value: sessions[second] ?? '', domain: 'localhost', path: '/api' }]);
    await page.reload();
    await page.getByText('The request has session cookies of 2 sessions.').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).waitFor();
    takeStatusLines(opened, 400);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('code that the server no longer has leads to the new version', async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    await context.route('**/assets/settings-*.js', (route) => route.fulfill({ status: 404 }));
    await context.route(`${app.url}/`, async (route) => {
      const response = await route.fetch();
      const isCheck = route.request().resourceType() === 'fetch';
      const body = await response.text();
      await route.fulfill({
        response,
        body: isCheck ? body.replace(/build&quot;:&quot;\w+/, 'build&quot;:&quot;next') : body,
      });
    });
    const opened = await open('/settings', { context });
    const { page } = opened;
    await page.getByRole('heading', { name: 'A new version is available', level: 1 }).waitFor();
    await expectAccessible(page);
    await context.unroute('**/assets/settings-*.js');
    await page.getByRole('main').getByRole('button', { name: 'Reload' }).click();
    await page.getByRole('heading', { name: 'Settings' }).waitFor();
    takeStatusLines(opened, 404);
    expect(opened.complaints).toEqual([]);
    await context.close();
  });

  it('code that could not be loaded is loaded once the connection is back, without a reload', async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    const [code, check] = ['**/assets/settings-*.js', (url: URL) => url.pathname === '/'] as const;
    await context.route(code, (route) => route.abort());
    await context.route(check, (route) => route.abort());
    const opened = await open('/settings', { context });
    const { page } = opened;
    await page.getByRole('heading', { name: 'No connection', level: 1 }).waitFor();
    await page.evaluate('globalThis.isSameDocument = true');
    await context.unroute(code);
    await context.unroute(check);
    await page.getByRole('heading', { name: 'Settings' }).waitFor();
    expect(await page.evaluate('globalThis.isSameDocument')).toBe(true);
    takeStatusLines(opened, 'no response');
    expect(opened.complaints).toEqual([]);
    await context.close();
  });
});
