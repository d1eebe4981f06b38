import { describe } from '@jest/globals';
import { existsSync } from 'node:fs';
import type { Browser, Page } from 'playwright-core';
import type { TestUser } from '../stack.ts';
import { CHROMIUM_PATH, connectToSharedBrowser } from './shared-browser.ts';

/** `describe` when a browser is installed. Otherwise the tests are skipped with a message; in CI that is an error. */
export const describeInBrowser = existsSync(CHROMIUM_PATH) ? describe : withoutBrowser();

function withoutBrowser(): typeof describe.skip {
  const reason = `There is no Chromium at ${CHROMIUM_PATH}. Set CHROMIUM_PATH to another path.`;
  if (process.env['CI'] !== undefined) throw new Error(reason);
  process.stderr.write(`${reason} Tests in the browser are skipped.\n`);
  return describe.skip;
}

/** Connects to the browser of this run. The caller closes the connection, and with it the pages that it opened. */
export function launchChromium(): Promise<Browser> {
  return connectToSharedBrowser();
}

/** Fills in Keycloak's login pages. With an organization in the realm, the password is on a second page. */
export async function fillInLogin(page: Page, user: TestUser): Promise<void> {
  await page.locator('#username').fill(user.username);
  const password = page.locator('#password');
  if (!(await password.isVisible())) await page.locator('#kc-login').click();
  await password.fill(user.password);
  await page.locator('#kc-login').click();
}
