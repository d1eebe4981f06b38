import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI, { APIError } from 'openai';
import type { ResponseInput } from 'openai/resources/responses/responses';
import { startDemoUpstream, type DemoUpstream } from '../../src/dev/demo-upstream/server.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { response, responseFrames } from '../support/upstream/responses-frames.ts';
import { answer, startUpstream, type Upstream } from '../support/upstream.ts';

const KEY = 'demo-0123456789-wxyz';
const hello = { model: 'demo', input: 'Good morning' };
const weather = {
  type: 'function' as const,
  name: 'get_weather',
  strict: false,
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
};

let demo: DemoUpstream;
let openai: Upstream;
let app: TestApp;
let client: OpenAI;

beforeAll(async () => {
  demo = await startDemoUpstream({ delayMs: 0 });
  openai = await startUpstream();
  app = await startApp({ env: { UPSTREAM_DEMO_URL: demo.url, UPSTREAM_OPENAI_URL: openai.url } });
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'demo', key: KEY });
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
  client = new OpenAI({
    apiKey: 'none',
    baseURL: `${app.url}/v1`,
    maxRetries: 0,
    defaultHeaders: { authorization: null, cookie: `session=${session}` },
  });
});
afterAll(async () => {
  await app.stop();
  await demo.stop();
  await openai.stop();
});

/** The error of a call, with status and code. */
async function errorOf(call: Promise<unknown>): Promise<unknown> {
  const error = await call.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof APIError)) throw error;
  return error;
}

describe('the official SDK', () => {
  it('receives a response', async () => {
    const created = await client.responses.create(hello);
    expect(created.output_text).toContain('You wrote: Good morning');
    expect(created).toMatchObject({ object: 'response', status: 'completed', model: 'demo', store: true });
    expect(created.usage?.total_tokens).toBeGreaterThan(10);
  });

  it('receives a response that is cut', async () => {
    const created = await client.responses.create({ ...hello, max_output_tokens: 16 });
    expect(created).toMatchObject({
      status: 'incomplete',
      incomplete_details: { reason: 'max_output_tokens' },
    });
  });

  it('receives typed events with numbers', async () => {
    const events = [];
    for await (const event of await client.responses.create({ ...hello, stream: true })) events.push(event);
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual(events.map((_, index) => index));
    const text = events
      .map((event) => (event.type === 'response.output_text.delta' ? event.delta : ''))
      .join('');
    expect(text).toContain('You wrote: Good morning');
    expect(events.at(-1)).toMatchObject({ type: 'response.completed', response: { status: 'completed' } });
  });

  it('assembles the response of a stream', async () => {
    const final = await client.responses.stream(hello).finalResponse();
    expect(final.output_text).toContain('You wrote: Good morning');
  });

  it.each([false, true])('completes a tool loop (streamed: %s)', async (stream) => {
    const input: ResponseInput = [{ role: 'user', content: 'Call get_weather' }];
    const request = { model: 'demo', input, tools: [weather] };
    const first = stream
      ? await client.responses.stream(request).finalResponse()
      : await client.responses.create(request);
    const [call] = first.output;
    if (call?.type !== 'function_call') throw new Error('no call of a function');
    expect(call).toMatchObject({ name: 'get_weather', arguments: '{"city":"demo"}' });
    const result = { type: 'function_call_output' as const, call_id: call.call_id, output: 'Sunny' };
    const whole = await client.responses.create({
      ...request,
      input: [...input, call, result],
      store: false,
    });
    expect(whole.output_text).toContain('The tool answered: Sunny');
    const continued = await client.responses.create({
      ...{ model: 'demo', tools: [weather], input: [result] },
      previous_response_id: first.id,
    });
    expect(continued.output_text).toContain('The tool answered: Sunny');
  });

  it('continues, retrieves, lists and deletes a stored response', async () => {
    const first = await client.responses.create(hello);
    const second = await client.responses.create({
      ...{ model: 'demo', input: 'And good night' },
      previous_response_id: first.id,
    });
    expect(second.previous_response_id).toBe(first.id);
    expect(second.usage?.input_tokens).toBeGreaterThan(first.usage?.input_tokens ?? Infinity);
    const { _request_id: _, ...sent } = first;
    expect(await client.responses.retrieve(first.id)).toEqual(sent);
    const items = [];
    for await (const item of client.responses.inputItems.list(first.id, { limit: 1, order: 'asc' }))
      items.push(item);
    expect(items).toMatchObject([{ role: 'user', content: 'Good morning' }]);
    const again = [];
    for await (const event of await client.responses.retrieve(first.id, { stream: true, starting_after: 3 }))
      again.push(event.sequence_number);
    expect(again[0]).toBe(4);
    await client.responses.delete(first.id);
    expect(await errorOf(client.responses.retrieve(first.id))).toMatchObject({
      status: 404,
      code: 'not_found',
    });
  });

  it('cancels a response in the background only', async () => {
    const background = await client.responses.create({ ...hello, background: true });
    expect(await client.responses.cancel(background.id)).toMatchObject({ id: background.id });
    const other = await client.responses.create(hello);
    expect(await errorOf(client.responses.cancel(other.id))).toMatchObject({
      status: 400,
      message: expect.stringContaining('Cannot cancel a synchronous response') as unknown,
    });
  });

  it('throws the provider’s error and ours', async () => {
    expect(await errorOf(client.responses.create({ ...hello, max_output_tokens: 1 }))).toMatchObject({
      status: 400,
      param: 'max_output_tokens',
    });
    const unknown = client.responses.create({ ...hello, previous_response_id: 'resp_unknown' });
    expect(await errorOf(unknown)).toMatchObject({
      status: 400,
      code: 'validation_failed',
      param: 'previous_response_id',
    });
  });

  it('throws an error for a stream that ends early, after the text so far', async () => {
    openai.reply((writer) =>
      answer.steps(responseFrames(writer.request, { text: 'Half of it' }).slice(0, 5))(writer),
    );
    let text = '';
    const read = async () => {
      for await (const event of await client.responses.create({ ...hello, model: 'gpt-4o', stream: true }))
        if (event.type === 'response.output_text.delta') text += event.delta;
    };
    expect(await errorOf(read())).toMatchObject({ code: 'upstream_incomplete' });
    expect(text).toBe('Half of');
    openai.reset();
    openai.reply((writer) => answer.steps(responseFrames(writer.request).slice(0, 5))(writer));
    const helper = client.responses.stream({ ...hello, model: 'gpt-4o' }).finalResponse();
    expect(await errorOf(helper)).toMatchObject({ code: 'upstream_incomplete' });
    openai.reset();
  });

  it('ends the upstream request when it aborts', async () => {
    openai.reply((writer) =>
      answer.steps([...responseFrames(writer.request).slice(0, 2), { until: new Promise(() => undefined) }])(
        writer,
      ),
    );
    const stream = await client.responses.create({ ...hello, model: 'gpt-4o', stream: true });
    for await (const event of stream) {
      expect(event.type).toBe('response.created');
      break;
    }
    await openai.closed(0);
    openai.reset();
    openai.reply(response());
  });
});
