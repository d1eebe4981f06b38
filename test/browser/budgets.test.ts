import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Browser } from 'playwright-core';
import { BUILD_DIRECTORY } from '../../src/page/routes.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { describeInBrowser, launchChromium } from '../support/page/chromium.ts';
import { createUser } from '../support/stack.ts';

const KB = 1000;
const SHELL_BYTES = 200 * KB;
const PAGE_BYTES = 130 * KB;

/** Vite's manifest: each chunk with the chunks that it needs at once, by source file. */
type Manifest = Record<string, { file: string; isEntry?: boolean; src?: string; imports?: string[] }>;

describe('the size of JavaScript (gzip)', () => {
  const manifest = JSON.parse(
    readFileSync(path.join(BUILD_DIRECTORY, '.vite/manifest.json'), 'utf8'),
  ) as Manifest;
  const shell = needed('index.html');

  function needed(name: string, seen = new Set<string>()): Set<string> {
    const chunk = manifest[name];
    if (chunk === undefined || seen.has(chunk.file)) return seen;
    seen.add(chunk.file);
    for (const other of chunk.imports ?? []) needed(other, seen);
    return seen;
  }
  const bytesOf = (files: Iterable<string>) =>
    [...files].reduce((sum, file) => sum + readFileSync(path.join(BUILD_DIRECTORY, `${file}.gz`)).length, 0);

  it(`of the shell is at most ${SHELL_BYTES / KB} kB`, () => {
    expect(bytesOf(shell)).toBeLessThan(SHELL_BYTES);
    expect(shell.size).toBeGreaterThan(0);
  });

  it.each(Object.keys(manifest).filter((name) => /^pages\/[\w-]+\/index\.tsx$/.test(name)))(
    `that %s needs beside the shell is at most ${PAGE_BYTES / KB} kB`,
    (name) => {
      const files = [...needed(name)].filter((file) => !shell.has(file));
      expect(files.length).toBeGreaterThan(0);
      expect(bytesOf(files)).toBeLessThan(PAGE_BYTES);
    },
  );
});

/** Chromium measures; the page only reads the figures. Times in ms. */
const OBSERVE = `
  globalThis.figures = { paint: 0, shift: 0, interaction: 0 };
  const observe = (type, read, options = {}) =>
    new PerformanceObserver((list) => list.getEntries().forEach(read)).observe({ type, buffered: true, ...options });
  observe('paint', (entry) => { if (entry.name === 'first-contentful-paint') figures.paint = entry.startTime; });
  observe('layout-shift', (entry) => { if (!entry.hadRecentInput) figures.shift += entry.value; });
  observe('event', (entry) => { if (entry.interactionId) figures.interaction = Math.max(figures.interaction, entry.duration); },
    { durationThreshold: 16 });
`;

interface Figures {
  /** First contentful paint, ms after the navigation began. */
  paint: number;
  /** Sum of all layout shifts that no input caused. */
  shift: number;
  /** The longest interaction until its next paint, ms; 0 without one. */
  interaction: number;
}

const MAX_VISITS = 8;

function isWithinBudget({ paint, shift, interaction }: Figures): boolean {
  return paint > 0 && paint < 1_000 && shift < 0.01 && interaction < 100;
}

describeInBrowser('speed', () => {
  let app: TestApp;
  let browser: Browser;
  let session: string;
  beforeAll(async () => {
    [app, browser] = await Promise.all([startApp(), launchChromium()]);
    session = await app.signIn(await createUser({ tier: 'starter' }));
  });
  afterAll(async () => {
    await browser.close();
    await app.stop();
  });

  /** Visits a page in a new browser context, whose caches are empty. */
  async function measure(address: string, isSignedIn: boolean): Promise<Figures> {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
    await context.addInitScript(OBSERVE);
    if (isSignedIn)
      await context.addCookies([{ name: 'session', value: session, domain: 'localhost', path: '/' }]);
    const page = await context.newPage();
    const client = await context.newCDPSession(page);
    await client.send('Emulation.setCPUThrottlingRate', { rate: 4 });
    await page.goto(app.url + address);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await client.send('Emulation.setCPUThrottlingRate', { rate: 1 });
    if (isSignedIn) {
      await page.getByText('Dark', { exact: true }).click();
      await page.locator('html[data-mantine-color-scheme="dark"]').waitFor();
    }
    // Two frames later, all entries of the interaction are there.
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
    const figures = await page.evaluate<Figures>('figures');
    await context.close();
    return figures;
  }

  it.each([
    ['the landing', '/', false],
    ['the settings', '/settings', true],
  ])(
    '%s paints within 1 s on a processor four times slower, shifts nothing, and answers within 100 ms',
    async (_name, address, isSignedIn) => {
      // Other processes of the machine delay some visits. The fastest one shows what the page itself needs.
      const visits: Figures[] = [];
      while (visits.length < MAX_VISITS && !visits.some(isWithinBudget))
        visits.push(await measure(address, isSignedIn));
      process.stderr.write(`[figures] ${address}: ${JSON.stringify(visits)}\n`);
      expect(visits.filter(isWithinBudget)).not.toEqual([]);
    },
  );
});
