import { afterAll, afterEach, beforeAll, expect, it } from '@jest/globals';
import OpenAI, { AuthenticationError } from 'openai';
import type { Browser, Page } from 'playwright-core';
import { describeInBrowser, fillInLogin, launchChromium } from '../support/page/chromium.ts';
import type { TestApp } from '../support/app.ts';
import { openPage, takeStatusLines } from '../support/page/open-page.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser } from '../support/stack.ts';
import type { Upstream } from '../support/upstream.ts';
import type { RecordedRequest } from '../support/upstream/recorded-request.ts';

const SYSTEM_KEY = 'sk-the-key-of-the-system-default';
const MODEL = 'gpt-4o';
const messages = [{ role: 'user' as const, content: 'Hello' }];

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let system: Upstream;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openai',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: MODEL,
    DEFAULT_LLM_MODELS: MODEL,
  }));
  ({ app, openai, system } = gateway);
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

/** Official SDK with the options of the README. */
function sdk(session: string): OpenAI {
  return new OpenAI({
    baseURL: `${app.url}/v1`,
    apiKey: 'unused',
    defaultHeaders: { Cookie: `session=${session}`, Authorization: null },
    maxRetries: 0,
  });
}

/** Expects exactly these headers, independent of the headers that the SDK sends. */
function expectOwnHeaders(request: RecordedRequest, key: string, accept: string): void {
  expect(Object.fromEntries(request.rawHeaders.map(([name, value]) => [name.toLowerCase(), value]))).toEqual({
    accept,
    'accept-encoding': 'identity',
    authorization: `Bearer ${key}`,
    connection: 'keep-alive',
    'content-length': String(request.body.length),
    'content-type': 'application/json',
    host: new URL(openai.url).host,
    'user-agent': 'ops-center',
  });
}

async function textOf(stream: AsyncIterable<OpenAI.ChatCompletionChunk>): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
  return text;
}

describeInBrowser('in a browser', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchChromium();
  });
  afterAll(async () => {
    await browser.close();
  });

  async function signInOnPages(page: Page, user: Parameters<typeof fillInLogin>[1]): Promise<string> {
    await page.getByRole('link', { name: 'Sign in' }).click();
    await fillInLogin(page, user);
    await page.waitForURL(`${app.url}/`);
    const cookies = await page.context().cookies(app.url);
    return cookies.find(({ name }) => name === 'session')?.value ?? '';
  }

  it('a user signs in on Keycloak’s pages, adds a key, chats with it through the official SDK, deletes it, and signs out', async () => {
    const user = await createUser({ tier: 'starter' });
    const opened = await openPage(browser, app);
    const { page } = opened;
    const session = await signInOnPages(page, user);
    await page.getByText(user.username).waitFor();

    const key = openAiKey();
    const keyId = await addKey(app, session, { provider: 'openai', key, label: 'Mine' });
    const client = sdk(session);
    const whole = await client.chat.completions.create({ model: MODEL, messages }).withResponse();
    expect(whole.data.choices[0]?.message.content).toBe('Hello from the upstream.');
    expect(whole.response.headers.get('x-ops-key-id')).toBe(keyId);
    expectOwnHeaders(await openai.received(1), key, 'application/json');
    const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true });
    expect(await textOf(stream)).toBe('Hello from the upstream.');
    expectOwnHeaders(await openai.received(2), key, 'text/event-stream');
    expect(system.requests).toHaveLength(0);

    const deleted = await app.call(`/api/v1/byok/keys/openai?key_id=${keyId}`, { method: 'DELETE', session });
    expect(await deleted.json()).toMatchObject({ deleted: 1 });
    const paid = await client.chat.completions.create({ model: MODEL, messages }).asResponse();
    expect(Object.fromEntries(paid.headers)).toMatchObject({
      'x-ops-key-scope': 'system',
      'x-ops-reason': 'no_key',
    });
    expect((await system.received(1)).key).toBe(SYSTEM_KEY);
    expect(openai.requests).toHaveLength(2);

    await page.getByRole('banner').getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('link', { name: 'Sign in' }).waitFor();
    expect(page.url()).toBe(`${app.url}/`);
    expect(takeStatusLines(opened, 401)).toBe(2);
    expect(opened.complaints).toEqual([]);
    await page.context().close();
  });

  it('signing out ends the session in the app and in Keycloak', async () => {
    const user = await createUser({ tier: 'starter' });
    const { page } = await openPage(browser, app);
    const session = await signInOnPages(page, user);
    const admin = await adminClient();
    expect(await admin.users.listSessions({ id: user.id })).toHaveLength(1);

    await page.getByRole('banner').getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('link', { name: 'Sign in' }).waitFor();
    expect((await app.call('/api/v1/me', { session })).status).toBe(401);
    await expect(sdk(session).models.list()).rejects.toBeInstanceOf(AuthenticationError);
    expect(await page.context().cookies(app.url)).not.toContainEqual(
      expect.objectContaining({ name: 'session' }),
    );
    expect(await admin.users.listSessions({ id: user.id })).toHaveLength(0);
    await page.getByRole('link', { name: 'Sign in' }).click();
    await page.locator('#username').waitFor();
    await page.context().close();
  });
});
