import { describe } from '@jest/globals';
import { existsSync } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';
import type { TestUser } from '../stack.ts';

const executablePath = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';

/** `describe` when a browser is installed. Otherwise the tests are skipped with a message; in CI that is an error. */
export const describeInBrowser = existsSync(executablePath) ? describe : withoutBrowser();

function withoutBrowser(): typeof describe.skip {
  const reason = `There is no Chromium at ${executablePath}. Set CHROMIUM_PATH to another path.`;
  if (process.env['CI'] !== undefined) throw new Error(reason);
  process.stderr.write(`${reason} Tests in the browser are skipped.\n`);
  return describe.skip;
}

/** Starts a headless browser, which requests loopback addresses only. The caller closes it. */
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

/** Fills in Keycloak's login pages. With an organization in the realm, the password is on a second page. */
export async function fillInLogin(page: Page, user: TestUser): Promise<void> {
  await page.locator('#username').fill(user.username);
  const password = page.locator('#password');
  if (!(await password.isVisible())) await page.locator('#kc-login').click();
  await password.fill(user.password);
  await page.locator('#kc-login').click();
}
