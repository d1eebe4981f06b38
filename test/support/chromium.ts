import { describe } from '@jest/globals';
import { existsSync } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';
import type { TestUser } from './stack.ts';

const executablePath = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';

/** `describe` where there is a browser. Elsewhere its tests are skipped aloud, except in CI, where they must run. */
export const describeInBrowser = existsSync(executablePath) ? describe : withoutBrowser();

function withoutBrowser(): typeof describe.skip {
  const reason = `There is no Chromium at ${executablePath}; CHROMIUM_PATH can name another.`;
  if (process.env['CI'] !== undefined) throw new Error(reason);
  process.stderr.write(`${reason} Tests in the browser are skipped.\n`);
  return describe.skip;
}

/** A real browser without a window. The caller closes it. It visits loopback only. */
export function launchChromium(): Promise<Browser> {
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  });
}

/** Collects what the browser complains of on a page: errors in its console (refused by policy, not loaded) and scripts that failed. */
export function collectPageErrors(page: Page): string[] {
  const complaints: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning')
      complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`${page.url()}: ${error.message}`));
  return complaints;
}

/** Fills in Keycloak's login pages; with an organization in the realm the name has a page of its own. */
export async function fillInLogin(page: Page, user: TestUser): Promise<void> {
  await page.locator('#username').fill(user.username);
  const password = page.locator('#password');
  if (!(await password.isVisible())) await page.locator('#kc-login').click();
  await password.fill(user.password);
  await page.locator('#kc-login').click();
}
