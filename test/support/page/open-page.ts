import type { Browser, BrowserContext, Page, Response } from 'playwright-core';
import type { TestApp } from '../app.ts';

export interface OpenPageOptions {
  /** Address below the app. */
  path?: string;
  /** Value of the session cookie; a visitor has none. */
  session?: string;
  width?: number;
  colorScheme?: 'light' | 'dark';
  /** A context of an earlier page, for a second tab of the same browser. */
  context?: BrowserContext;
}

/** An opened page and all that its browser complained about. */
export interface OpenPage {
  page: Page;
  /** Errors and warnings of the console, reports of the content security policy, and uncaught errors. */
  complaints: string[];
  /** Addresses of all requests and the bodies of all responses. */
  network: { urls: string[]; bodies: string[] };
}

/** Chromium writes this line for each response with such a status, and for each request without a response. */
const FAILED_REQUEST =
  /Failed to load resource: (?:the server responded with a status of (\d+)|(net::ERR_\w+))/;

/** Opens the app in a browser context of its own and waits for the page's heading. */
export async function openPage(
  browser: Browser,
  app: TestApp,
  options: OpenPageOptions = {},
): Promise<OpenPage> {
  const { path = '/', session, width = 1280, colorScheme = 'light' } = options;
  const context =
    options.context ??
    (await browser.newContext({
      viewport: { width, height: 800 },
      colorScheme,
      reducedMotion: 'reduce',
      permissions: ['clipboard-read', 'clipboard-write'],
    }));
  if (session !== undefined)
    await context.addCookies([{ name: 'session', value: session, domain: 'localhost', path: '/' }]);
  const page = await context.newPage();
  const opened: OpenPage = { page, complaints: [], network: { urls: [], bodies: [] } };
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') opened.complaints.push(message.text());
  });
  page.on('pageerror', (error) => opened.complaints.push(error.message));
  page.on('request', (request) => opened.network.urls.push(request.url()));
  page.on('response', (response) => void recordBody(response, opened.network.bodies));
  await page.goto(`${app.url}${path}`);
  await page.getByRole('heading', { level: 1 }).waitFor();
  return opened;
}

/** Bodies of redirects and of responses that a navigation ended cannot be read. */
async function recordBody(response: Response, bodies: string[]): Promise<void> {
  if (!response.url().includes('/assets/')) bodies.push(await response.text().catch(() => ''));
}

/**
 * Removes Chromium's lines about one status, or about requests without a response, which the test expects.
 * @returns how many there were.
 */
export function takeStatusLines({ complaints }: OpenPage, status: number | 'no response'): number {
  const kept = complaints.filter((text) => {
    const line = FAILED_REQUEST.exec(text);
    if (line === null) return true;
    return status === 'no response' ? line[2] === undefined : line[1] !== String(status);
  });
  const taken = complaints.length - kept.length;
  complaints.splice(0, complaints.length, ...kept);
  return taken;
}

/** Does what coming back to a tab does: the page reads again what may have changed. */
export async function comeBackToTab(page: Page): Promise<void> {
  await page.evaluate(() => {
    const { dispatchEvent, Event } = globalThis as unknown as {
      dispatchEvent: (event: object) => void;
      Event: new (type: string) => object;
    };
    dispatchEvent(new Event('visibilitychange'));
  });
}
