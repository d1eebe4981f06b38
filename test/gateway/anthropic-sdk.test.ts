import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startDemoUpstream, type DemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { anthropicKey } from '../support/surfaces.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

const FIRST_BYTE_MS = 1_500;
const SILENCE_MS = 300;
/** The upstream is called once, and the SDK twice more. */
const WITH_RETRIES = 3;

let upstream: Upstream;
let demo: DemoUpstream;
let app: TestApp;
let client: Anthropic;

beforeAll(async () => {
  upstream = await startUpstream();
  demo = await startDemoUpstream({ delayMs: 0 });
  app = await startApp({
    env: {
      UPSTREAM_ANTHROPIC_URL: upstream.url,
      UPSTREAM_DEMO_URL: demo.url,
      UPSTREAM_FIRST_BYTE_TIMEOUT_MS: String(FIRST_BYTE_MS),
      STREAM_SILENCE_MS: String(SILENCE_MS),
    },
  });
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'anthropic', key: anthropicKey() });
  await addKey(app, session, { provider: 'demo', key: 'demo-0123456789-wxyz' });
  client = new Anthropic({
    apiKey: 'none',
    baseURL: app.url,
    defaultHeaders: { authorization: null, 'x-api-key': null, cookie: `session=${session}` },
  });
});
afterAll(async () => {
  await app.stop();
  await demo.stop();
  await upstream.stop();
});
afterEach(() => {
  upstream.reset();
});

const request = {
  model: 'claude-sonnet-5-5',
  max_tokens: 100,
  messages: [{ role: 'user' as const, content: 'Hello' }],
};
const weather = {
  name: 'get_weather',
  input_schema: { type: 'object' as const, properties: { city: { type: 'string' } } },
};

describe('Anthropic’s SDK on the demo upstream', () => {
  const ask = { ...request, model: 'demo' };

  it('receives a message, whole and as a stream', async () => {
    const whole = await client.messages.create(ask);
    const text = whole.content[0]?.type === 'text' ? whole.content[0].text : '';
    expect(text).toMatch(/^This is a demo.*ends in wxyz\. You wrote: Hello$/);
    expect(whole).toMatchObject({ role: 'assistant', stop_reason: 'end_turn' });
    const stream = client.messages.stream(ask);
    let streamed = '';
    stream.on('text', (delta) => (streamed += delta));
    expect(await stream.finalMessage()).toMatchObject({
      content: [{ type: 'text', text }],
      ...{ stop_reason: 'end_turn', usage: whole.usage },
    });
    expect(streamed).toBe(text);
  });

  it.each([[false], [true]])(
    'calls a tool and receives text after its result (streamed: %s)',
    async (stream) => {
      const withTools = { ...ask, model: 'demo-tools', tools: [weather] };
      const first = stream
        ? await client.messages.stream(withTools).finalMessage()
        : await client.messages.create(withTools);
      const [call] = first.content;
      if (call?.type !== 'tool_use') throw new Error('no call of a tool');
      expect([first.stop_reason, call.name, call.input]).toEqual([
        'tool_use',
        'get_weather',
        { city: 'demo' },
      ]);
      const result = { type: 'tool_result' as const, tool_use_id: call.id, content: 'sunny' };
      const messages = [
        ...ask.messages,
        { role: 'assistant' as const, content: first.content },
        { role: 'user' as const, content: [result] },
      ];
      const second = await client.messages.create({ ...withTools, messages });
      expect(second.content).toMatchObject([{ type: 'text', text: expect.stringContaining('sunny') }]);
    },
  );

  it('counts tokens', async () => {
    const { max_tokens: _maxTokens, ...counted } = ask;
    const few = await client.messages.countTokens(counted);
    const more = await client.messages.countTokens({ ...counted, system: 'one two three', tools: [weather] });
    expect(few.input_tokens).toBeGreaterThan(0);
    expect(more.input_tokens).toBeGreaterThan(few.input_tokens);
  });

  it('receives the demo’s own error', async () => {
    const create = client.messages.create({ ...ask, max_tokens: 0 });
    await expect(create).rejects.toMatchObject({ status: 400, type: 'invalid_request_error' });
  });
});

/** What a program sees of a call with the SDK's own retries on. */
async function call(stream: boolean): Promise<{ text: string; status?: unknown; type?: unknown }> {
  let text = '';
  try {
    if (!stream) {
      const { content } = await client.messages.create(request);
      return { text: content[0]?.type === 'text' ? content[0].text : '' };
    }
    for await (const event of await client.messages.create({ ...request, stream: true }))
      if (event.type === 'content_block_delta' && event.delta.type === 'text_delta') text += event.delta.text;
    return { text };
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return { text, status: error.status ?? null, type: error.type };
  }
}

const retried = { headers: { 'retry-after-ms': '1' } };
const overloaded = { type: 'error', error: { type: 'overloaded_error', message: 'm' } };

describe('Anthropic’s SDK', () => {
  it.each<[string, boolean, Answer, object, number]>([
    ['an answer', false, answer.completion({ text: 'Hi' }), { text: 'Hi' }, 1],
    ['an answer that takes too long', false, fault.silent(), { status: 504, type: 'timeout_error' }, 1],
    ['a reset after the request', false, fault.resetBeforeHeaders(), { status: 502, type: 'api_error' }, 1],
    ['413 as a web page', false, answer.html(413), { status: 413, type: 'api_error' }, 1],
    [
      '529',
      false,
      answer.reply({ ...retried, status: 529, body: overloaded }),
      { status: 529, type: 'overloaded_error' },
      WITH_RETRIES,
    ],
    [
      '503 that must not be retried',
      false,
      answer.reply({ status: 503, body: overloaded, headers: { 'x-should-retry': 'false' } }),
      { status: 503, type: 'overloaded_error' },
      1,
    ],
    ['a stream', true, answer.completion({ text: 'Hi' }), { text: 'Hi' }, 1],
    [
      'a stream that ends without message_stop',
      true,
      fault.endsEarly({ afterFrames: 3 }),
      { status: null, type: 'api_error' },
      1,
    ],
    [
      'a stream that is reset',
      true,
      fault.resetInStream({ afterFrames: 3 }),
      { status: null, type: 'api_error' },
      1,
    ],
    [
      'an error event',
      true,
      fault.errorEvent({ error: overloaded.error }),
      { status: null, type: 'overloaded_error' },
      1,
    ],
    [
      'a first event after a long silence',
      true,
      (writer) => writer.delay(SILENCE_MS * 2).then(() => answer.completion({ text: 'Late' })(writer)),
      { text: 'Late' },
      1,
    ],
    [
      'an error after a long silence',
      true,
      (writer) =>
        writer.delay(SILENCE_MS * 2).then(() => answer.reply({ status: 529, body: overloaded })(writer)),
      { status: null, type: 'overloaded_error' },
      1,
    ],
    ['no answer after a long silence', true, fault.silent(), { status: null, type: 'timeout_error' }, 1],
  ])('%s', async (_case, stream, upstreamAnswer, expected, calls) => {
    upstream.answerAll(upstreamAnswer);
    const outcome = await call(stream);
    // No case passes with an error that it does not expect.
    const whole = { status: undefined, type: undefined, ...outcome, calls: upstream.requests.length };
    expect(whole).toMatchObject({ status: undefined, type: undefined, ...expected, calls });
  });

  it('sends pings, and no comments, before the answer', async () => {
    upstream.reply((writer) => writer.delay(SILENCE_MS * 2).then(() => answer.completion()(writer)));
    const response = await client.messages.create({ ...request, stream: true }).asResponse();
    expect(await response.text()).toMatch(
      /^(event: ping\ndata: \{"type": "ping"\}\n\n)+event: message_start\n/,
    );
  });

  it.each([[false], [true]])(
    'that is aborted ends the call to the provider (streamed: %s)',
    async (stream) => {
      upstream.reply(stream ? answer.endlessStream({ everyMs: 5 }) : fault.silent());
      const controller = new AbortController();
      const created = client.messages.create({ ...request, stream }, { signal: controller.signal });
      created.catch(() => undefined);
      await upstream.received(1);
      if (stream) await created;
      controller.abort();
      await upstream.closed(0);
    },
  );
});
