import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import type { Response } from 'undici';
import type { TestApp } from '../support/app.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { findStreamError, readEventStream } from '../support/stream.ts';
import { until } from '../support/until.ts';
import { answer, fault, type Answer, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const SILENCE_MS = 200;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
const streamed = { ...hello, stream: true };

let gateway: Gateway;
let app: TestApp;
let openai: Upstream;
let session: string;
let key: string;
let keyId: string;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    STREAM_SILENCE_MS: String(SILENCE_MS),
    UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '5000',
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODELS: '*',
  }));
  ({ app, openai } = gateway);
  ({ session, key, keyId } = await signedIn());
});
afterAll(() => gateway.stop());
afterEach(() => {
  gateway.reset();
});

async function signedIn() {
  const user = await app.signIn(await createUser({ tier: 'starter' }));
  const added = openAiKey();
  return { session: user, key: added, keyId: await addKey(app, user, { provider: 'openai', key: added }) };
}

const chat = (json: object = streamed, user = session, signal?: AbortSignal) =>
  app.call(CHAT, { method: 'POST', session: user, json, ...(signal ? { signal } : {}) });

/** An answer that begins when the gate opens. */
function afterGate(next: Answer): { held: Answer; open: () => void } {
  const gate = Promise.withResolvers<null>();
  const held: Answer = async (writer) => {
    await writer.waitFor(gate.promise);
    await next(writer);
  };
  return { held, open: () => gate.resolve(null) };
}

/** Sends a streamed request whose upstream answers only after the response has begun. */
async function chatLate(next: Answer, user = session): Promise<Response> {
  const { held, open } = afterGate(next);
  openai.reply(held);
  const response = await chat(streamed, user);
  open();
  return response;
}

const receipt = () => app.events('answer_passed').at(-1);

describe('a streamed request whose upstream does not answer in time', () => {
  it('gets a 200 with the request id alone and a comment, then the answer', async () => {
    const response = await chatLate(answer.completion({ text: 'at last' }));
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(response.headers.get('x-request-id')).toMatch(/^req_/);
    const names = [...response.headers.keys()];
    expect(names.filter((name) => /^(x-ops-|x-should-retry|ratelimit)/.test(name))).toEqual([]);
    const text = await response.text();
    expect(text).toMatch(/^: keep-alive\n\n/);
    expect(text).toContain('last');
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(receipt()).toMatchObject({
      request_id: response.headers.get('x-request-id'),
      ...{ status: 200, end: 'done', provider: 'openai', model: 'gpt-4o' },
      ...{ key_scope: 'personal', key_id: keyId, attempts: 1 },
    });
  });

  it('is sent a comment after each further time of silence', async () => {
    const { held, open } = afterGate(answer.completion());
    openai.reply(held);
    const reader = (await chat()).body?.getReader();
    for (let count = 0; count < 3; count += 1)
      expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe(': keep-alive\n\n');
    open();
    await reader?.cancel();
  });

  it('does not name the payer in its headers when the system pays', async () => {
    const { held, open } = afterGate(answer.completion());
    gateway.system.reply(held);
    const response = await chat({ ...streamed, model: 'vendor/model', metadata: {} });
    open();
    await response.text();
    const names = [...response.headers.keys()];
    expect(names.filter((name) => /^(x-ops-|ratelimit)/.test(name))).toEqual([]);
    expect(receipt()).toMatchObject({ key_scope: 'system', key_id: null, attempts: 1 });
  });

  it('is the only kind of request whose response begins before the answer', async () => {
    const { held, open } = afterGate(answer.error(503));
    openai.reply(held);
    const whole = chat(hello);
    await openai.received(1);
    openai.reply(held);
    // It began later, so the other one has waited for that time as well.
    const late = await chat();
    open();
    expect([late.status, (await whole).status]).toEqual([200, 503]);
    await late.text();
  });

  const inProtocol = { message: 'limit', type: 'requests', param: null, code: 'rate_limit_exceeded' };
  it.each<[string, Answer, object, string]>([
    [
      'an error of the protocol',
      answer.reply({ status: 429, body: { error: inProtocol } }),
      inProtocol,
      'failed',
    ],
    [
      'an error with status 200',
      answer.reply({ status: 200, body: { error: inProtocol } }),
      inProtocol,
      'failed',
    ],
    ['an error text', answer.reply({ status: 500, body: { error: 'odd' } }), { message: 'odd' }, 'failed'],
    [
      'an error of FastAPI',
      answer.reply({ status: 422, body: { detail: 'bad' } }),
      { message: 'bad' },
      'failed',
    ],
    [
      'JSON of another shape',
      answer.reply({ status: 500, body: { errors: [{ why: 'x' }] } }),
      { message: '{"errors":[{"why":"x"}]}', type: 'upstream_error' },
      'failed',
    ],
    ['a web page', answer.html(502), { message: 'The provider answered 502 with a web page.' }, 'failed'],
    ['HTML with 200', answer.html(200), { code: 'upstream_malformed' }, 'failed'],
    ['a whole completion', answer.reply({ body: { choices: [] } }), { code: 'upstream_malformed' }, 'failed'],
    ['a reset', fault.resetBeforeHeaders(), { code: 'upstream_unreachable' }, 'failed'],
    ['a reset after the headers', fault.resetAfterHeaders(), { code: 'upstream_unreachable' }, 'failed'],
    ['a stream that ends early', fault.endsEarly(), { code: 'upstream_incomplete' }, 'incomplete'],
    ['silence', fault.silent(), { code: 'upstream_timeout' }, 'failed'],
  ])('ends with an error event, never a clean end, after %s', async (_name, upstreamAnswer, error, end) => {
    const response = await chatLate(upstreamAnswer);
    const events = await readEventStream(response).events;
    expect(findStreamError(events)).toMatchObject(error);
    expect(events).not.toContain('[DONE]');
    expect(receipt()).toMatchObject({ end, provider: 'openai', key_id: keyId, attempts: 1 });
  });

  it('ends with an error event without the key that an error repeats', async () => {
    const response = await chatLate(answer.error(500, { message: `the key ${key} is odd` }));
    expect(findStreamError(await readEventStream(response).events)).toMatchObject({
      message: 'the key *** is odd',
    });
  });

  it('ends with an error event when the user signs out', async () => {
    const other = await signedIn();
    openai.reply(fault.silent());
    const response = await chat(streamed, other.session);
    await app.call('/auth/logout', { method: 'POST', session: other.session });
    expect(findStreamError(await readEventStream(response).events)).toMatchObject({
      code: 'unauthenticated',
    });
    await openai.closed(0);
  });

  it('ends the call to the upstream when its client leaves', async () => {
    openai.reply(fault.silent());
    const client = new AbortController();
    await chat(streamed, session, client.signal);
    expect(openai.openConnections).toBe(1);
    client.abort();
    await openai.closed(0);
    await until(() => app.events('client_gone').length > 0);
  });
});

describe('a pool whose first key is refused after the response has begun', () => {
  it('serves the request with its next key in the same stream', async () => {
    const other = await signedIn();
    await addKey(app, other.session, { provider: 'openai', key: openAiKey() });
    const response = await chatLate(answer.error(401), other.session);
    const events = await readEventStream(response).events;
    expect(events.at(-1)).toBe('[DONE]');
    expect(findStreamError(events)).toBeUndefined();
    expect(openai.requests).toHaveLength(2);
    expect(receipt()).toMatchObject({ status: 200, end: 'done', attempts: 2 });
  });

  it('ends with the first refusal when every key is refused', async () => {
    const other = await signedIn();
    await addKey(app, other.session, { provider: 'openai', key: openAiKey() });
    const { held, open } = afterGate(answer.error(401, { message: 'Invalid API key: first' }));
    openai.reply(held, answer.error(401, { message: 'Invalid API key: second' }));
    const response = await chat(streamed, other.session);
    open();
    expect(findStreamError(await readEventStream(response).events)).toMatchObject({
      message: 'Invalid API key: first',
    });
    expect(receipt()).toMatchObject({ status: 401, end: 'failed', attempts: 2 });
  });
});

describe('OpenAI’s SDK with its own retries', () => {
  const createClient = () =>
    new OpenAI({
      apiKey: 'none',
      baseURL: `${app.url}/v1`,
      maxRetries: 2,
      defaultHeaders: { authorization: null, cookie: `session=${session}` },
    });

  /** Resolves when the response has begun. */
  const begin = () =>
    createClient().chat.completions.create({
      ...{ model: 'gpt-4o', stream: true },
      messages: [{ role: 'user', content: 'Hello' }],
    });

  async function read(stream: Awaited<ReturnType<typeof begin>>): Promise<string> {
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    return text;
  }

  it('reads a stream that began before the upstream answered', async () => {
    const { held, open } = afterGate(answer.completion({ text: 'Good morning' }));
    openai.reply(held);
    const stream = await begin();
    open();
    expect(await read(stream)).toBe('Good morning');
    expect(openai.requests).toHaveLength(1);
  });

  it.each<[string, Answer, object]>([
    [
      'an error of the upstream',
      answer.error(429),
      { message: 'Rate limit reached.', code: 'rate_limit_exceeded', status: undefined },
    ],
    ['an error of ours', fault.resetBeforeHeaders(), { code: 'upstream_unreachable', status: undefined }],
    ['a stream that ends early', fault.endsEarly(), { code: 'upstream_incomplete', status: undefined }],
  ])('throws for %s and does not send the request again', async (_name, upstreamAnswer, error) => {
    openai.answerAll(answer.completion());
    const { held, open } = afterGate(upstreamAnswer);
    openai.reply(held);
    const stream = await begin();
    open();
    await expect(read(stream)).rejects.toMatchObject(error);
    expect(openai.requests).toHaveLength(1);
  });
});
