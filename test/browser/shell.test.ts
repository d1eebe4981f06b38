import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser } from 'playwright-core';
import { startApp, type TestApp } from '../support/app.ts';
import { expectAccessible, tabTo } from '../support/page/accessibility.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { openPage, takeStatusLines } from '../support/page/open-page.ts';
import { createUser, type TestUser } from '../support/stack.ts';

describeInBrowser('the shell', () => {
  let app: TestApp;
  let browser: Browser;
  let user: TestUser;
  let session: string;
  beforeAll(async () => {
    [app, browser, user] = await Promise.all([startApp(), launchChromium(), createUser({ tier: 'starter' })]);
    session = await app.signIn(user);
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
  });

  it('shows a visitor what the product is, with one button', async () => {
    const opened = await openPage(browser, app);
    const { page } = opened;
    expect(await page.getByRole('link').allInnerTexts()).toEqual(['Sign in']);
    expect(await page.getByRole('button').count()).toBe(0);
    await expectAccessible(page);
    expect(takeStatusLines(opened, 401)).toBe(1);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('leads a visitor to the page they asked for, after signing in', async () => {
    const { page } = await openPage(browser, app, { path: '/settings' });
    const link = page.getByRole('link', { name: 'Sign in' });
    expect(await link.getAttribute('href')).toBe('/auth/login?return_to=%2Fsettings');
    await page.context().close();
  });

  it('shows the settings by keyboard alone, and the appearance is kept', async () => {
    const opened = await openPage(browser, app, { path: '/settings', session });
    const { page } = opened;
    expect(await page.title()).toBe('Settings · Ops Center');
    expect(await page.getByRole('main').innerText()).toContain(user.username);
    await tabTo(page, 'Skip to content');
    await tabTo(page, 'System');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await page.locator('html[data-mantine-color-scheme="dark"]').waitFor();
    await page.reload();
    await page.locator('html[data-mantine-color-scheme="dark"]').waitFor();
    await page.getByText('System').click();
    await expectAccessible(page);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('opens the menu on a phone, and gives the focus back when it is closed', async () => {
    const opened = await openPage(browser, app, { path: '/settings', session, width: 320 });
    const { page } = opened;
    const button = page.getByRole('button', { name: 'Open menu' });
    await button.click();
    await page.getByRole('dialog').getByRole('link', { name: 'Settings' }).waitFor();
    await expectAccessible(page, [320]);
    await page.keyboard.press('Escape');
    await page.getByRole('dialog').waitFor({ state: 'hidden' });
    expect(await page.locator('*:focus').getAttribute('aria-label')).toBe('Open menu');
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });
});
