import { existsSync } from 'node:fs';
import { chromium, type Browser, type BrowserServer } from 'playwright-core';

export const CHROMIUM_PATH = process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium';
const ADDRESS = 'OPS_TEST_BROWSER';

let server: BrowserServer | undefined;

/** Starts one headless browser for all test files, which requests loopback addresses only. Without Chromium: nothing. */
export async function startSharedBrowser(): Promise<void> {
  if (!existsSync(CHROMIUM_PATH)) return;
  server = await chromium.launchServer({
    executablePath: CHROMIUM_PATH,
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
  process.env[ADDRESS] = server.wsEndpoint();
}

export async function stopSharedBrowser(): Promise<void> {
  await server?.close();
}

/** Connects to the shared browser. Closing the result closes the contexts that were opened with it. */
export function connectToSharedBrowser(): Promise<Browser> {
  const address = process.env[ADDRESS];
  if (address === undefined) throw new Error('jest starts the browser: run `npm run test:browser -- <path>`');
  return chromium.connect(address);
}
