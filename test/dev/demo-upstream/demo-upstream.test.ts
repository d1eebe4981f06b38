import { request as httpRequest } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import { request } from 'undici';
import { startDemoUpstream, type DemoUpstream } from '../../../src/dev/demo-upstream/server.ts';

const KEY = 'demo-0123456789-wxyz';
const weather = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string' },
        unit: { type: 'string', enum: ['celsius', 'fahrenheit'] },
        days: { type: 'integer', minimum: 3 },
      },
    },
  },
};
const clock = { type: 'function' as const, function: { name: 'clock' } };

let demo: DemoUpstream;
let client: OpenAI;

function clientWith(apiKey: string): OpenAI {
  return new OpenAI({ apiKey, baseURL: demo.url, maxRetries: 0, organization: null, project: null });
}

function ask(content: string) {
  return { model: 'demo', messages: [{ role: 'user' as const, content }] };
}

async function post(body: unknown, headers: Record<string, string> = {}) {
  const answer = await request(`${demo.url}/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() };
}

function errorOf(text: string) {
  return (JSON.parse(text) as { error: Record<string, unknown> }).error;
}

beforeAll(async () => {
  demo = await startDemoUpstream({ delayMs: 0 });
  client = clientWith(KEY);
});
afterAll(() => demo.stop());

describe('a response that is not streamed', () => {
  it('states that it is a demo, contains only the last 4 characters of the key, and repeats the text', async () => {
    const answer = await client.chat.completions.create(ask('Good morning'));
    const text = answer.choices[0]?.message.content;
    expect(text).toContain('This is a demo');
    expect(text).toContain('ends in wxyz.');
    expect(text).toContain('Good morning');
    expect(JSON.stringify(answer)).not.toContain('9-wxyz');
    expect(answer).toMatchObject({ object: 'chat.completion', model: 'demo' });
    expect(answer.choices[0]?.finish_reason).toBe('stop');
  });

  it('accepts any model name and returns it', async () => {
    expect((await client.chat.completions.create({ ...ask('x'), model: 'openai/gpt-4o' })).model).toBe(
      'openai/gpt-4o',
    );
  });

  it('counts the tokens of the prompt, the tools and the response', async () => {
    const short = await client.chat.completions.create(ask('one'));
    const long = await client.chat.completions.create(ask('one two three four five'));
    const tooled = await client.chat.completions.create({ ...ask('one'), tools: [weather] });
    expect(long.usage?.prompt_tokens).toBeGreaterThan(short.usage?.prompt_tokens ?? Infinity);
    expect(tooled.usage?.prompt_tokens).toBeGreaterThan(long.usage?.prompt_tokens ?? Infinity);
    expect(short.usage?.completion_tokens).toBeGreaterThan(10);
    for (const { usage } of [short, long, tooled]) {
      expect(usage?.total_tokens).toBe((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0));
    }
  });

  it.each(['max_tokens', 'max_completion_tokens'])(
    'is cut at %s with finish_reason length',
    async (field) => {
      const answer = await client.chat.completions.create({ ...ask('x'), [field]: 7 });
      expect(answer.choices[0]?.finish_reason).toBe('length');
      expect(answer.usage?.completion_tokens).toBe(7);
      expect(answer.choices[0]?.message.content).toBe('This is a demo: no mode');
    },
  );

  it('ends before a stop word with finish_reason stop', async () => {
    const answer = await client.chat.completions.create({ ...ask('x'), stop: ['never said', ' no '] });
    expect(answer.choices[0]?.message.content).toBe('This is a demo:');
    expect(answer.choices[0]?.finish_reason).toBe('stop');
  });

  it('has as many choices as n asks for', async () => {
    const { choices } = await client.chat.completions.create({ ...ask('x'), n: 3 });
    expect(choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
  });

  it('joins content parts', async () => {
    const content = [
      { type: 'text' as const, text: 'first ' },
      { type: 'text' as const, text: 'second' },
    ];
    const answer = await client.chat.completions.create({
      model: 'demo',
      messages: [{ role: 'user', content }],
    });
    expect(answer.choices[0]?.message.content).toContain('first second');
  });
});

describe('a streamed response', () => {
  it('sends the role, one word per chunk, the finish reason and [DONE]', async () => {
    const { text, headers } = await post({ ...ask('Grüße 🙂'), stream: true });
    const frames = text.split('\n\n').filter(Boolean);
    expect(headers['content-type']).toBe('text/event-stream; charset=utf-8');
    expect(frames.every((frame) => frame.startsWith('data: '))).toBe(true);
    expect(frames.at(-1)).toBe('data: [DONE]');
    const chunks = frames
      .slice(0, -1)
      .map((frame) => JSON.parse(frame.slice(6)) as OpenAI.ChatCompletionChunk);
    expect(chunks[0]?.choices[0]?.delta).toEqual({ role: 'assistant', content: '', refusal: null });
    expect(chunks.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(new Set(chunks.map((chunk) => `${chunk.id} ${chunk.object}`)).size).toBe(1);
    expect(chunks[0]?.object).toBe('chat.completion.chunk');
    expect(chunks.every((chunk) => !('usage' in chunk))).toBe(true);
    const words = chunks.slice(1, -1).map((chunk) => chunk.choices[0]?.delta.content ?? '');
    expect(words.every((word) => /^\s*\S+$/.test(word))).toBe(true);
    expect(words.join('')).toMatch(/^This is a demo.* Grüße 🙂$/);
  });

  it('has the same text through the SDK as the response that is not streamed', async () => {
    const whole = await client.chat.completions.create(ask('same'));
    let streamed = '';
    for await (const chunk of await client.chat.completions.create({ ...ask('same'), stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? '';
    }
    expect(streamed).toBe(whole.choices[0]?.message.content);
  });

  it('ends with a usage chunk without choices when include_usage is set, and usage null before it', async () => {
    const stream = await client.chat.completions.create({
      ...ask('x'),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    expect(last?.choices).toEqual([]);
    const whole = await client.chat.completions.create(ask('x'));
    expect(last?.usage).toEqual(whole.usage);
    expect(chunks.every((chunk) => chunk.usage === null)).toBe(true);
  });

  it('has every choice of n under its own index', async () => {
    const ended: number[] = [];
    for await (const chunk of await client.chat.completions.create({ ...ask('x'), n: 2, stream: true })) {
      const choice = chunk.choices[0];
      if (choice?.finish_reason === 'stop') ended.push(choice.index);
    }
    expect(ended).toEqual([0, 1]);
  });
});

describe('tool calls', () => {
  it('are made when required, with arguments that match the schema', async () => {
    const answer = await client.chat.completions.create({
      ...ask('x'),
      tools: [weather],
      tool_choice: 'required',
    });
    const call = answer.choices[0]?.message.tool_calls?.[0];
    expect(answer.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { content: null } });
    expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } });
    const given: unknown = call?.type === 'function' ? JSON.parse(call.function.arguments) : undefined;
    expect(given).toEqual({ city: 'demo', unit: 'celsius', days: 3 });
  });

  it('use the tool that tool_choice names', async () => {
    const answer = await client.chat.completions.create({
      ...ask('x'),
      tools: [weather, clock],
      tool_choice: { type: 'function', function: { name: 'clock' } },
    });
    expect(answer.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'clock' } }]);
  });

  it.each([
    [
      'the model is demo-tools',
      { ...ask('x'), model: 'demo-tools', tools: [weather, clock] },
      ['get_weather'],
    ],
    [
      'the text names tools',
      { ...ask('Use clock, then get_weather.'), tools: [weather, clock] },
      ['get_weather', 'clock'],
    ],
    [
      'only one may be called at once',
      { ...ask('Use clock and get_weather.'), tools: [weather, clock], parallel_tool_calls: false },
      ['get_weather'],
    ],
    ['nothing requires them', { ...ask('x'), tools: [weather] }, []],
    ['the text contains the name only in a longer word', { ...ask('o-clock'), tools: [clock] }, []],
    ['tool_choice is none', { ...ask('clock'), tools: [clock], tool_choice: 'none' as const }, []],
  ])('select the right tools when %s', async (_, body, names) => {
    const { choices } = await client.chat.completions.create(body);
    const calls = choices[0]?.message.tool_calls ?? [];
    expect(calls.map((call) => (call.type === 'function' ? call.function.name : ''))).toEqual(names);
  });

  it('stream as one delta with id and name, then parts of the arguments, with an index each', async () => {
    const stream = await client.chat.completions.create({
      ...ask('get_weather and clock'),
      tools: [weather, clock],
      stream: true,
    });
    const deltas = [];
    let reason: string | null = null;
    for await (const chunk of stream) {
      deltas.push(...(chunk.choices[0]?.delta.tool_calls ?? []));
      reason = chunk.choices[0]?.finish_reason ?? reason;
    }
    expect(reason).toBe('tool_calls');
    const first = deltas.filter((delta) => delta.index === 0);
    expect(first[0]).toMatchObject({
      id: expect.stringMatching(/^call_/),
      function: { name: 'get_weather', arguments: '' },
    });
    expect(first.length).toBeGreaterThan(3);
    expect(
      first.slice(1).every((delta) => delta.id === undefined && delta.function?.name === undefined),
    ).toBe(true);
    expect(JSON.parse(first.map((delta) => delta.function?.arguments).join(''))).toHaveProperty('city');
    expect(
      deltas
        .filter((delta) => delta.index === 1)
        .map((delta) => delta.function?.arguments)
        .join(''),
    ).toBe('{}');
  });

  it("are followed by text that contains the tool's result, also when a call is required", async () => {
    const runner = client.chat.completions.runTools({
      ...ask('x'),
      model: 'demo-tools',
      stream: true,
      tools: [
        {
          type: 'function',
          function: {
            name: 'get_weather',
            description: 'Tells the weather.',
            parameters: { type: 'object', properties: { city: { type: 'string' } } },
            function: (text: string) => `sunny in ${(JSON.parse(text) as { city: string }).city}`,
          },
        },
      ],
    });
    expect(await runner.finalContent()).toContain('The tool answered: sunny in demo');
    const messages = [...runner.messages].slice(0, -1);
    const answer = await client.chat.completions.create({
      model: 'demo',
      messages,
      tools: [weather],
      tool_choice: 'required',
    });
    expect(answer.choices[0]?.message.content).toContain('sunny in demo');
  });
});

describe('keys', () => {
  it.each(['demo-0123456789', 'sk-0123456789abcdef0123', 'Demo-0123456789abcdef'])(
    'refuses %s with 401 and does not repeat the key',
    async (key) => {
      const failure: unknown = await clientWith(key)
        .chat.completions.create(ask('x'))
        .catch((error: unknown) => error);
      expect(failure).toBeInstanceOf(OpenAI.AuthenticationError);
      expect(failure).toMatchObject({ status: 401, code: 'invalid_api_key', type: 'invalid_request_error' });
      expect(JSON.stringify((failure as { error?: unknown }).error)).not.toContain(key);
    },
  );

  it('accepts a key of exactly 16 characters', async () => {
    const answer = await clientWith('demo-0123456789a').chat.completions.create(ask('x'));
    expect(answer.choices[0]?.message.content).toContain('789a');
  });

  it('refuses a request without a key, also for models', async () => {
    const answer = await request(`${demo.url}/models`);
    expect(answer.statusCode).toBe(401);
    expect(errorOf(await answer.body.text())).toMatchObject({ code: null, type: 'invalid_request_error' });
  });
});

describe('other requests', () => {
  it('lists its models', async () => {
    expect((await client.models.list()).data.map((model) => model.id)).toEqual([
      ...['demo', 'demo-tools', 'demo-embeddings'],
    ]);
  });

  it.each([
    ['a body that is not JSON', '{"model":', undefined, null],
    ['a body that is not an object', '[]', undefined, null],
    ['missing messages', { model: 'demo' }, 'messages', 'missing_required_parameter'],
    [
      'a missing model',
      { messages: [{ role: 'user', content: 'x' }] },
      'model',
      'missing_required_parameter',
    ],
    ['messages of the wrong type', { model: 'demo', messages: 'x' }, 'messages', 'invalid_type'],
    ['no message', { model: 'demo', messages: [] }, 'messages', 'invalid_value'],
    ['an unknown role', { model: 'demo', messages: [{ role: 'king' }] }, 'messages.0.role', 'invalid_value'],
    ['a limit below 1', { ...ask('x'), max_tokens: 0 }, 'max_tokens', 'invalid_value'],
    ['tool_choice without tools', { ...ask('x'), tool_choice: 'required' }, 'tool_choice', null],
    [
      'tool_choice of an unknown tool',
      { ...ask('x'), tools: [clock], tool_choice: weather },
      'tool_choice',
      null,
    ],
  ])("answers 400 in OpenAI's shape to %s", async (_, body, param, code) => {
    const { status, text } = await post(body);
    expect(status).toBe(400);
    expect(errorOf(text)).toEqual({
      message: expect.any(String),
      type: 'invalid_request_error',
      param: param ?? null,
      code,
    });
  });

  it('answers 404 to an unknown path and 405 with Allow to a wrong method', async () => {
    const headers = { authorization: `Bearer ${KEY}` };
    const unknown = await request(`${demo.url}/nothing`, { headers });
    expect(unknown.statusCode).toBe(404);
    expect(errorOf(await unknown.body.text())['message']).toBe('Invalid URL (GET /v1/nothing)');
    const wrong = await request(`${demo.url}/chat/completions`, { headers });
    expect(wrong.statusCode).toBe(405);
    expect(wrong.headers['allow']).toBe('POST');
    expect(errorOf(await wrong.body.text())['type']).toBe('invalid_request_error');
  });

  it('answers 413 to a body over 32 MiB', async () => {
    const { status } = await post(`"${'x'.repeat(32 * 1024 * 1024)}"`);
    expect(status).toBe(413);
  });

  it('refuses a Host that is not a loopback name', async () => {
    const status = await new Promise((resolve, reject) => {
      httpRequest(`${demo.url}/models`, {
        headers: { host: 'rebound.example', authorization: `Bearer ${KEY}` },
      })
        .once('response', (response) => {
          response.resume();
          resolve(response.statusCode);
        })
        .once('error', reject)
        .end();
    });
    expect(status).toBe(421);
  });
});

describe('listening', () => {
  it.each(['0.0.0.0', '::', '192.168.1.10', 'example.org'])('refuses to listen on %s', async (host) => {
    await expect(startDemoUpstream({ host })).rejects.toThrow('loopback only');
  });

  it('fails when the port is in use', async () => {
    const port = Number(new URL(demo.url).port);
    await expect(startDemoUpstream({ port })).rejects.toMatchObject({ code: 'EADDRINUSE' });
  });

  it('closes running streams when it stops, and may be stopped twice', async () => {
    const slow = await startDemoUpstream({ delayMs: 60_000 });
    const answer = await request(`${slow.url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${KEY}` },
      body: JSON.stringify({ ...ask('x'), stream: true }),
    });
    const text = answer.body.text().catch((error: unknown) => error);
    await slow.stop();
    await slow.stop();
    expect(await text).toBeInstanceOf(Error);
    await expect(request(`${slow.url}/models`)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });
});

describe('Anthropic’s protocol', () => {
  const hello = { model: 'demo', max_tokens: 100, messages: [{ role: 'user', content: 'Hello' }] };
  const VERSION = { 'anthropic-version': '2023-06-01' };

  async function send(path: string, body: unknown, headers: Record<string, string>) {
    const response = await request(`${demo.url}${path}`, {
      method: 'POST',
      headers,
      body: typeof body === 'string' ? body : JSON.stringify(body),
    });
    const { 'request-id': requestId } = response.headers;
    return { status: response.statusCode, requestId, text: await response.body.text() };
  }

  it.each([{ 'x-api-key': KEY }, { authorization: `Bearer ${KEY}` }])(
    'accepts the key in %j',
    async (authorization) => {
      const { status, requestId, text } = await send('/messages', hello, { ...VERSION, ...authorization });
      expect([status, requestId]).toEqual([200, expect.stringMatching(/^req_/)]);
      expect(JSON.parse(text)).toMatchObject({
        type: 'message',
        content: [{ text: expect.stringContaining('Hello') }],
      });
    },
  );

  it('streams events that name their types, in order', async () => {
    const { text } = await send('/messages', { ...hello, stream: true }, { ...VERSION, 'x-api-key': KEY });
    const frames = text.split('\n\n').filter(Boolean);
    const types = frames.map((frame) => {
      const [, type = '', data = ''] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? [];
      expect((JSON.parse(data) as { type: string }).type).toBe(type);
      return type;
    });
    const isRepeated = (type: string, index: number) => type === types[index - 1];
    expect(types.filter((type, index) => !isRepeated(type, index))).toEqual([
      ...['message_start', 'ping', 'content_block_start', 'content_block_delta', 'content_block_stop'],
      ...['message_delta', 'message_stop'],
    ]);
  });

  it('cuts a message at max_tokens', async () => {
    const { text } = await send('/messages', { ...hello, max_tokens: 7 }, { ...VERSION, 'x-api-key': KEY });
    expect(JSON.parse(text)).toMatchObject({ stop_reason: 'max_tokens', usage: { output_tokens: 7 } });
  });

  it.each<[string, unknown, Record<string, string>, number, string]>([
    ['no version', hello, { 'x-api-key': KEY }, 400, 'invalid_request_error'],
    ['no key', hello, VERSION, 401, 'authentication_error'],
    ['another key', hello, { ...VERSION, 'x-api-key': 'sk-ant-0123456789' }, 401, 'authentication_error'],
    [
      'no max_tokens',
      { ...hello, max_tokens: undefined },
      { ...VERSION, 'x-api-key': KEY },
      400,
      'invalid_request_error',
    ],
    [
      'another role',
      { ...hello, messages: [{ role: 'king', content: 'x' }] },
      { ...VERSION, 'x-api-key': KEY },
      400,
      'invalid_request_error',
    ],
    ['no JSON', '{', { ...VERSION, 'x-api-key': KEY }, 400, 'invalid_request_error'],
  ])('refuses a request with %s in its shape', async (_name, body, headers, status, type) => {
    const answer = await send('/messages', body, headers);
    expect([answer.status, JSON.parse(answer.text)]).toMatchObject([
      status,
      { type: 'error', error: { type } },
    ]);
  });

  it('has its shape of errors for unknown paths below it', async () => {
    const { status, text } = await send('/messages/batches', {}, { ...VERSION, 'x-api-key': KEY });
    expect([status, JSON.parse(text)]).toMatchObject([
      404,
      { type: 'error', error: { type: 'not_found_error' } },
    ]);
  });
});
