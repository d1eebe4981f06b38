import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI, { APIError, AuthenticationError, BadRequestError, RateLimitError } from 'openai';
import type { Browser, Page } from 'playwright-core';
import { collectPageErrors, describeInBrowser, fillInLogin, launchChromium } from '../support/chromium.ts';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { adminClient, createUser } from '../support/stack.ts';
import { answer, fault, type Upstream } from '../support/upstream.ts';
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

async function signedInWithKey(): Promise<{ session: string; client: OpenAI; key: string; keyId: string }> {
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  const key = openAiKey();
  const keyId = await addKey(app, session, { provider: 'openai', key });
  return { session, client: sdk(session), key, keyId };
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
    await page.goto(app.url);
    await page.getByRole('link', { name: 'Sign in' }).click();
    await fillInLogin(page, user);
    await page.waitForURL(`${app.url}/`);
    const cookies = await page.context().cookies(app.url);
    return cookies.find(({ name }) => name === 'session')?.value ?? '';
  }

  it('a user signs in on Keycloak’s pages, adds a key, chats with it through the official SDK, deletes it, and signs out', async () => {
    const user = await createUser({ tier: 'starter' });
    const page = await browser.newPage();
    const complaints = collectPageErrors(page);
    const main = page.getByRole('main');

    const session = await signInOnPages(page, user);
    expect(await main.innerText()).toMatch(new RegExp(`Signed in as\\s+${user.username}\\s+Tier\\s+starter`));
    expect(await main.innerText()).toContain(
      'The system default (openai) would serve the next chat request: you have no key for it yet.',
    );

    const key = openAiKey();
    const keyId = await addKey(app, session, { provider: 'openai', key, label: 'Mine' });
    await page.reload();
    expect(await main.innerText()).toContain('Your openai key “Mine” would serve the next chat request.');

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
    await page.reload();
    expect(await main.innerText()).toContain('The system default (openai) would serve');
    const paid = await client.chat.completions.create({ model: MODEL, messages }).asResponse();
    expect(Object.fromEntries(paid.headers)).toMatchObject({
      'x-ops-key-scope': 'system',
      'x-ops-reason': 'no_key',
    });
    expect((await system.received(1)).key).toBe(SYSTEM_KEY);
    expect(openai.requests).toHaveLength(2);

    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByRole('link', { name: 'Sign in' }).waitFor();
    expect(page.url()).toBe(`${app.url}/`);
    expect(complaints).toEqual([]);
    await page.context().close();
  });

  it('signing out ends the session in the app and in Keycloak', async () => {
    const user = await createUser({ tier: 'starter' });
    const page = await browser.newPage();
    const session = await signInOnPages(page, user);
    const admin = await adminClient();
    expect(await admin.users.listSessions({ id: user.id })).toHaveLength(1);

    await page.getByRole('button', { name: 'Sign out' }).click();
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

describe('the official SDK', () => {
  it('parses usage and tool calls', async () => {
    const { client } = await signedInWithKey();
    const call = { name: 'weather', arguments: '{"city":"Köln","days":[1,2]}' };
    openai.answerAll(answer.completion({ toolCalls: [call] }));
    const { choices, usage } = await client.chat.completions.create({ model: MODEL, messages });
    expect(choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: { content: null, tool_calls: [{ id: 'call_0', type: 'function', function: call }] },
    });
    expect(usage).toMatchObject({ prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 });
  });

  it('collects a stream with usage and tool calls into the same response', async () => {
    const { client, key } = await signedInWithKey();
    const call = { name: 'weather', arguments: '{"city":"Köln","days":[1,2]}' };
    openai.answerAll(answer.completion({ toolCalls: [call] }));
    const stream = client.chat.completions.stream({
      model: MODEL,
      messages,
      stream_options: { include_usage: true },
    });
    const { choices, usage } = await stream.finalChatCompletion();
    expect(choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: { tool_calls: [{ id: 'call_0', type: 'function', function: call }] },
    });
    expect(usage).toMatchObject({ total_tokens: 18 });
    expect((await openai.received(1)).key).toBe(key);
  });

  it('lists models', async () => {
    const { client } = await signedInWithKey();
    openai.answerAll(answer.models(['gpt-live']));
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    // Not the system's models: its provider is paid with the user's key.
    expect(ids).toEqual(['openai/gpt-live']);
  });

  it.each<[string, number, new (...args: never[]) => APIError]>([
    ['401', 401, AuthenticationError],
    ['429', 429, RateLimitError],
    ['400', 400, BadRequestError],
  ])(
    'throws its own class for the provider’s %s, with the provider’s message',
    async (_name, status, kind) => {
      const { client } = await signedInWithKey();
      openai.answerAll(answer.error(status, { message: 'the message of the provider' }));
      const error: unknown = await client.chat.completions
        .create({ model: MODEL, messages })
        .catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(kind);
      const { headers, message } = error as APIError;
      expect(message).toBe(`${status} the message of the provider`);
      expect(headers?.get('x-ops-error-source')).toBe('upstream');
    },
  );

  it('shows errors of the app with status, code, field and request id', async () => {
    const { client } = await signedInWithKey();
    openai.answerAll(answer.error(401));
    const refused = client.chat.completions.create({ model: MODEL, messages });
    await expect(refused).rejects.toBeInstanceOf(AuthenticationError);

    const unusable = client.chat.completions.create({ model: MODEL, messages });
    await expect(unusable).rejects.toMatchObject({
      status: 424,
      code: 'no_usable_key',
      requestID: expect.stringMatching(/^req_/),
      error: { skipped: [{ reason: 'set_aside' }] },
    });
    const withForbiddenField = { model: MODEL, messages, api_base: 'http://other.example' };
    const { client: other } = await signedInWithKey();
    const forbidden: unknown = await other.chat.completions
      .create(withForbiddenField)
      .catch((thrown: unknown) => thrown);
    expect(forbidden).toBeInstanceOf(BadRequestError);
    expect(forbidden).toMatchObject({ code: 'field_not_allowed', param: 'api_base' });
  });

  it('throws an APIError if the stream breaks in the middle, after the received chunks', async () => {
    const { client } = await signedInWithKey();
    openai.reply(fault.resetInStream({ afterFrames: 3 }));
    const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true });
    let chunks = 0;
    const read = async () => {
      for await (const _chunk of stream) chunks += 1;
    };
    const error: unknown = await read().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(APIError);
    expect(error).toMatchObject({ code: 'upstream_unreachable' });
    expect(chunks).toBe(3);
  });
});
