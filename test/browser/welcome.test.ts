import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser } from 'playwright-core';
import { startDemoUpstream, type DemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { openPage } from '../support/page/open-page.ts';
import { createUser } from '../support/stack.ts';

describeInBrowser('the first steps', () => {
  let demo: DemoUpstream;
  let app: TestApp;
  let browser: Browser;
  beforeAll(async () => {
    [demo, browser] = await Promise.all([startDemoUpstream(), launchChromium()]);
    app = await startApp({ env: { UPSTREAM_DEMO_URL: demo.url } });
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
    await demo.stop();
  });

  it('lead a new user, by keyboard alone, and go on where they were on another device', async () => {
    const session = await app.signIn(await createUser({ tier: 'starter' }));
    const { page, complaints } = await openPage(browser, app, { path: '/', session });
    await page.getByRole('heading', { name: 'First steps', level: 1 }).waitFor();
    await page.getByText('0 percent done').waitFor();
    await expectAccessible(page);
    await tabTo(page, 'Use the demo key');
    await page.keyboard.press('Enter');
    const steps = page.getByRole('main').getByRole('listitem');
    await steps.filter({ hasText: 'Add a provider key' }).getByText('Done').waitFor();
    await tabTo(page, 'Next step');
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'Add a server' }).waitFor();
    await expectAccessible(page);

    const other = await openPage(browser, app, { path: '/', session });
    await other.page.getByRole('link', { name: 'Add a server' }).waitFor();
    await other.page.getByRole('button', { name: 'Next step' }).click();
    await other.page.getByRole('link', { name: 'Make an access token' }).waitFor();
    const token = await app.call('/api/v1/tokens', {
      method: 'POST',
      session,
      json: { name: 'Mine', scopes: ['chat'] },
    });
    const { token: secret } = (await token.json()) as { token: string };
    await app.call('/v1/models', { headers: { authorization: `Bearer ${secret}` } });
    await other.page
      .getByRole('listitem')
      .filter({ hasText: 'Send your first request' })
      .getByText('Done')
      .waitFor();
    await expectAccessible(other.page);
    await other.page.getByRole('button', { name: 'Finish' }).click();
    await other.page.getByRole('heading', { name: 'Provider keys' }).waitFor();

    // Finished for all devices, until they are opened again.
    await page.goto(app.url);
    await page.getByRole('heading', { name: 'Provider keys' }).waitFor();
    await page.goto(`${app.url}/settings`);
    await page.getByRole('button', { name: 'Open the first steps' }).click();
    await page.getByRole('heading', { name: 'First steps', level: 1 }).waitFor();
    await page.getByRole('button', { name: 'Skip the first steps' }).click();
    await page.getByRole('heading', { name: 'Provider keys' }).waitFor();
    expect([...complaints, ...other.complaints]).toEqual([]);
    await page.context().close();
    await other.page.context().close();
  });

  it('say below Starter what works, and can be skipped', async () => {
    const session = await app.signIn(await createUser({ tier: 'free' }));
    const { page, complaints } = await openPage(browser, app, { path: '/', session });
    await page.getByText('Your tier does not include own keys and servers.').waitFor();
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Skip the first steps' }).click();
    await page.getByRole('heading', { name: 'Provider keys' }).waitFor();
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('Settings lists the sessions, and ends another one', async () => {
    const user = await createUser({ tier: 'starter' });
    const [session, ended] = [await app.signIn(user), await app.signIn(user)];
    const { page, complaints } = await openPage(browser, app, { path: '/settings', session });
    await page.getByText('This session').waitFor();
    await page.getByText('400 days').waitFor();
    await page.getByRole('button', { name: 'End session' }).click();
    await page.getByRole('dialog').getByText('That browser has to sign in again.').waitFor();
    await expectAccessible(page);
    await page.getByRole('dialog').getByRole('button', { name: 'End session' }).click();
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
    await page.getByRole('button', { name: 'End session' }).waitFor({ state: 'hidden' });
    expect((await app.call('/api/v1/me', { session: ended })).status).toBe(401);
    expect((await app.call('/api/v1/me', { session })).status).toBe(200);
    expect(complaints).toEqual([]);
    await page.context().close();
  });
});
