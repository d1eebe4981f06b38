import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser } from 'playwright-core';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey } from '../support/key.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { openPage } from '../support/page/open-page.ts';
import { createUser } from '../support/stack.ts';

describeInBrowser('the page Audit log', () => {
  let app: TestApp;
  let browser: Browser;
  beforeAll(async () => {
    [app, browser] = await Promise.all([
      startApp({ env: { UPSTREAM_DEMO_URL: 'http://127.0.0.1:9' } }),
      launchChromium(),
    ]);
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
  });

  it('tells what happened in words, by day, filtered, and a page at a time', async () => {
    const session = await app.signIn(await createUser({ tier: 'starter' }));
    await addKey(app, session, { provider: 'demo', key: 'demo-my-first-key', label: 'Work' });
    const gone = await addKey(app, session, { provider: 'demo', key: 'demo-my-second-key' });
    await app.call(`/api/v1/byok/keys/demo?key_id=${gone}`, { method: 'DELETE', session });
    for (let count = 0; count < 50; count += 1) {
      const token = await app.call('/api/v1/tokens', {
        method: 'POST',
        session,
        json: { name: 'Short', scopes: ['chat'] },
      });
      const { id } = (await token.json()) as { id: string };
      await app.call(`/api/v1/tokens/${id}`, { method: 'DELETE', session });
    }
    const { page, complaints } = await openPage(browser, app, { path: '/audit', session });
    const events = page.getByRole('main').getByRole('listitem');
    await events.filter({ hasText: 'You revoked the token' }).first().waitFor();
    expect(await events.count()).toBe(100);
    await expectAccessible(page);

    await tabTo(page, 'Load more');
    await page.keyboard.press('Enter');
    await events.filter({ hasText: 'You signed in' }).waitFor();
    await events.filter({ hasText: 'You added the key Demo “Work”' }).waitFor();
    // What no longer exists is named by its id.
    await events.filter({ hasText: `You deleted the key demo/${gone}` }).waitFor();

    await page.getByRole('combobox', { name: 'What' }).click();
    await page.getByRole('option', { name: 'Deleted a key', exact: true }).click();
    await events.filter({ hasText: 'You deleted' }).waitFor();
    expect(await events.count()).toBe(1);
    await page.getByLabel('To', { exact: true }).fill('2020-01-01');
    await page.getByRole('heading', { name: 'No event matches' }).waitFor();
    await expectAccessible(page);
    await page.getByRole('button', { name: 'Show everything' }).click();
    await events.filter({ hasText: 'You revoked the token' }).first().waitFor();
    expect(complaints).toEqual([]);
    await page.context().close();
  });
});
