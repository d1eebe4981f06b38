import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import type { Browser, Page } from 'playwright-core';
import { startApp, type TestApp } from '../support/app.ts';
import { collectPageErrors, describeInBrowser, launchChromium } from '../support/chromium.ts';
import { createUser, stack } from '../support/stack.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

describe('GET /', () => {
  it('offers to sign in, also for HEAD', async () => {
    const page = await app.call('/');
    expect([page.status, page.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    expect(await page.text()).toContain('href="/auth/login?return_to=/"');
    const head = await app.call('/', { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  it('treats an ended session as signed out', async () => {
    const page = await app.call('/', { session: 's%3Aabcdef.ghi' });
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('Sign in');
  });

  it('shows on the page why the user cannot be determined', async () => {
    const user = await createUser();
    const sessions = [await app.signIn(user), await app.signIn(user)];
    const cookie = sessions.map((session) => `session=${session}`).join('; ');
    const page = await app.call('/', { headers: { cookie } });
    expect([page.status, page.headers.get('content-type')]).toEqual([400, 'text/html; charset=utf-8']);
    const text = await page.text();
    expect(text).toContain('The request has session cookies of 2 sessions. Sign out, then sign in again.');
    expect(text).toContain('action="/auth/logout"');
    const line = app
      .logs()
      .split('\n')
      .find((text) => text.includes('the page cannot show the signed-in user'));
    expect(JSON.parse(line ?? '{}')).toMatchObject({ code: 'validation_failed', level: 40 });
    expect(line).not.toContain('stack');
  });

  it('names the user, is not cached, and runs no script', async () => {
    const user = await createUser({ tier: 'trial' });
    const page = await app.call('/', { session: await app.signIn(user) });
    const text = await page.text();
    expect(text).toContain(user.username);
    expect(text).toContain('trial');
    expect(text).not.toContain('<script');
    expect(Object.fromEntries(page.headers)).toMatchObject({
      'cache-control': 'no-store',
      'content-security-policy': `default-src 'none';style-src 'self';form-action 'self' ${new URL(stack.keycloak.url).origin};base-uri 'none';frame-ancestors 'none'`,
      'referrer-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
    });
  });
});

describeInBrowser('the page in a browser', () => {
  let browser: Browser;
  let session: string;
  beforeAll(async () => {
    browser = await launchChromium();
    session = await app.signIn(
      await createUser({ tier: 'starter', username: `user-${randomBytes(27).toString('hex')}` }),
    );
  });
  afterAll(async () => {
    await browser.close();
  });

  async function open(options: {
    signedIn: boolean;
    width: number;
    colorScheme: 'light' | 'dark';
  }): Promise<{ page: Page; complaints: string[] }> {
    const { width, colorScheme } = options;
    const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme });
    if (options.signedIn)
      await context.addCookies([{ name: 'session', value: session, domain: 'localhost', path: '/' }]);
    const page = await context.newPage();
    const complaints = collectPageErrors(page);
    await page.goto(app.url);
    return { page, complaints };
  }

  const looks = [false, true].flatMap((signedIn) =>
    [320, 1280].flatMap((width) =>
      (['light', 'dark'] as const).map((colorScheme) => ({ signedIn, width, colorScheme })),
    ),
  );

  it.each(looks)(
    'fits, has enough contrast and causes no browser errors (signed in: $signedIn, $width px, $colorScheme)',
    async (look) => {
      const { page, complaints } = await open(look);
      const properties = await page.evaluate(inspectPage);
      expect(properties).toMatchObject({ lang: 'en', title: 'Ops Center', headings: 1, overflowPx: 0 });
      expect(properties.contrast).toBeGreaterThan(4.5);
      expect(complaints).toEqual([]);
      await page.context().close();
    },
  );

  it('shows the keyboard focus, and every control is reachable by keyboard', async () => {
    const { page } = await open({ signedIn: true, width: 320, colorScheme: 'light' });
    const reached: string[] = [];
    for (let step = 0; step < 2; step += 1) {
      await page.keyboard.press('Tab');
      const { name, outline } = await page.evaluate(inspectFocus);
      reached.push(name);
      expect(outline).toBe('solid 3px');
    }
    expect(reached).toEqual(['PRE', 'BUTTON']);
    expect(await page.getByRole('region', { name: 'Add a key' }).count()).toBe(1);
    await page.context().close();
  });
});

/* The functions below run in the page and have no access to this file. */

interface PageElement {
  tagName: string;
  scrollWidth: number;
  clientWidth: number;
}
interface PageGlobals {
  document: {
    title: string;
    documentElement: PageElement & { lang: string };
    body: PageElement;
    activeElement: PageElement;
    querySelectorAll(selector: string): { length: number };
  };
  getComputedStyle: (element: PageElement) => {
    color: string;
    backgroundColor: string;
    outlineStyle: string;
    outlineWidth: string;
  };
}

function inspectPage() {
  const { document, getComputedStyle } = globalThis as unknown as PageGlobals;
  const root = document.documentElement;
  const { color, backgroundColor } = getComputedStyle(document.body);
  const [text, ground] = [luminance(color), luminance(backgroundColor)];
  return {
    lang: root.lang,
    title: document.title,
    headings: document.querySelectorAll('h1').length,
    overflowPx: root.scrollWidth - root.clientWidth,
    contrast: (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05),
  };

  /** WCAG 2.2, "relative luminance". */
  function luminance(color: string): number {
    const [red = 0, green = 0, blue = 0] = (color.match(/\d+/g) ?? []).map((number) => {
      const part = Number(number) / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }
}

function inspectFocus() {
  const { document, getComputedStyle } = globalThis as unknown as PageGlobals;
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return { name: document.activeElement.tagName, outline: `${outlineStyle} ${outlineWidth}` };
}
