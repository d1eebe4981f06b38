import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI, { APIError, AuthenticationError, BadRequestError, RateLimitError } from 'openai';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer, fault, type Upstream } from '../support/upstream.ts';

const SYSTEM_KEY = 'sk-the-key-of-the-system-default';
const MODEL = 'gpt-4o';
const messages = [{ role: 'user' as const, content: 'Hello' }];

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openai',
    DEFAULT_LLM_API_KEY: SYSTEM_KEY,
    DEFAULT_LLM_MODEL: MODEL,
    DEFAULT_LLM_MODELS: MODEL,
  }));
  ({ app, openai } = gateway);
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
