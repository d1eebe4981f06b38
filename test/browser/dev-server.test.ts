import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import type { Browser } from 'playwright-core';
import { startApp, type TestApp } from '../support/app.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { freePort } from '../support/free-port.ts';
import { openPage } from '../support/page/open-page.ts';
import { createUser } from '../support/stack.ts';

const ROOT = path.join(import.meta.dirname, '../..');

describeInBrowser('npm run dev:web', () => {
  let app: TestApp;
  let browser: Browser;
  beforeAll(async () => {
    [app, browser] = await Promise.all([startApp(), launchChromium()]);
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
  });

  it('serves the page from its sources, with reads and writes of a running app', async () => {
    const user = await createUser({ tier: 'starter' });
    const session = await app.signIn(user);
    const url = `http://localhost:${await freePort()}`;
    const vite = spawn('node_modules/.bin/vite', ['--strictPort', '--port', new URL(url).port], {
      cwd: ROOT,
      env: { PATH: process.env['PATH'], APP_URL: app.url },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(vite, 'exit');
    try {
      await new Promise<void>((resolve) => {
        vite.stdout.on('data', (chunk: Buffer) => {
          if (chunk.toString().includes('ready in')) resolve();
        });
      });
      const { page, complaints } = await openPage(browser, { ...app, url }, { path: '/settings', session });
      expect(await page.getByRole('main').innerText()).toContain(user.username);
      const status = await page.evaluate<number>(
        `fetch('/api/v1/tokens', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: '{"name": "dev", "scopes": ["chat"]}',
        }).then((response) => response.status)`,
      );
      expect(status).toBe(201);
      expect(complaints).toEqual([]);
    } finally {
      vite.kill();
      await ended;
    }
  });
});
