import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';
import type { ResponseWriter } from '../support/upstream/response-writer.ts';

const CHAT = '/v1/chat/completions';
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
const streamed = { ...hello, stream: true };
/** Of a client that wants the chunk with the usage, which others do not receive. */
const streamedWithUsage = { ...streamed, stream_options: { include_usage: true } };

let openai: Upstream;
let app: TestApp;
let session: string;
let key: string;

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: openai.url,
      UPSTREAM_CONNECT_TIMEOUT_MS: '500',
      UPSTREAM_FIRST_BYTE_TIMEOUT_MS: '700',
      UPSTREAM_IDLE_TIMEOUT_MS: '700',
    },
  });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  key = openAiKey();
  await addKey(app, session, { provider: 'openai', key });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});
afterEach(() => {
  openai.reset();
});

const chat = (json: object) => app.call(CHAT, { method: 'POST', session, json });

/** The data of each event in a stream, `[DONE]` included. */
function events(text: string): string[] {
  return text.split('\n\n').flatMap((frame) => (frame.startsWith('data: ') ? [frame.slice(6)] : []));
}

const parseLastEvent = (text: string) =>
  JSON.parse(events(text).at(-1) ?? '') as { error: { code: string; message: string } };

describe('an upstream of chat completions', () => {
  it('that was sent the body is not sent it again by OpenAI’s SDK after an error of ours', async () => {
    openai.answerAll(fault.silent());
    const client = new OpenAI({
      apiKey: 'none',
      baseURL: `${app.url}/v1`,
      maxRetries: 2,
      defaultHeaders: { authorization: null, cookie: `session=${session}` },
    });
    const create = client.chat.completions.create({ model: 'gpt-4o', messages: [] });
    await expect(create).rejects.toMatchObject({ status: 504 });
    expect(openai.requests).toHaveLength(1);
  });

  it('that refuses connections is a 502', async () => {
    const stopped = await startUpstream();
    await stopped.stop();
    await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: stopped.url });
    const response = await chat({ ...hello, model: 'custom/m' });
    expect([response.status, await response.json()]).toMatchObject([
      502,
      { error: { code: 'upstream_unreachable' } },
    ]);
    // Nothing was sent.
    expect(response.headers.get('x-should-retry')).toBeNull();
    await app.call('/api/v1/byok/keys/custom', { method: 'DELETE', session });
  });

  it.each([
    ['an error object', (text: string) => ({ error: { message: text, type: 'x' } })],
    ['an error text', (text: string) => ({ error: text })],
    ['an error beside choices', (text: string) => ({ choices: [], error: { message: text } })],
  ])('that reports %s with status 200 reveals no secret', async (_name, body) => {
    openai.reply(answer.reply({ status: 200, body: body(`the key ${key} is odd`) }));
    const response = await chat(hello);
    expect([response.status, await response.text()]).toEqual([
      200,
      JSON.stringify(body('the key *** is odd')),
    ]);
  });

  it('from a private address is not shown unless it follows the protocol', async () => {
    const inside = await startUpstream();
    try {
      await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: inside.url });
      const bodies: [number, unknown][] = [
        [200, { secret: 'inside' }],
        [200, ['inside']],
        [200, { error: 0, data: 'inside' }],
        [200, { choices: ['inside'] }],
        [200, { choices: [], data: 'inside' }],
        [200, { message: 'inside' }],
        [200, { detail: 'inside' }],
        [200, { error: true, data: 'inside' }],
        [500, { status: 'inside' }],
        [500, { detail: { data: 'inside' } }],
        [404, [{ message: 'inside' }]],
        [404, { error: null, internal: 'inside' }],
        [404, { error: { data: 'inside' } }],
        [404, { error: { message: 'a protocol error', data: 'inside' }, more: 'inside' }],
        [404, 'inside'],
      ];
      for (const [status, body] of bodies) {
        inside.reply(answer.reply({ status, body }));
        const response = await chat({ ...hello, model: 'custom/m' });
        expect(response.status).toBeGreaterThanOrEqual(400);
        expect(await response.text()).not.toContain('inside');
      }
      for (const frame of [
        'data: {"secret":"inside"}',
        ': inside',
        'event: error\ndata: inside',
        'data: {"error":{"data":"inside"}}',
        'id: inside\ndata: [DONE]',
        'id: inside',
        'data: inside',
      ]) {
        for (const contentType of ['text/event-stream', 'text/plain', null]) {
          const headers = contentType === 'text/event-stream' ? {} : { 'request-id': 'inside' };
          inside.reply(answer.steps([`${frame}\n\n`], { contentType, headers }));
          const response = await chat({ ...streamed, model: 'custom/m' });
          expect([await response.text(), ...response.headers.values()].join(' ')).not.toContain('inside');
        }
      }
      inside.answerAll(answer.reply({ status: 200, body: { data: [{ id: 'inside' }] } }));
      expect(await (await app.call('/v1/models', { session })).text()).not.toContain('inside');
      inside.reset();
      inside.reply(answer.completion({ text: 'all well' }));
      const well = await (await chat({ ...streamed, model: 'custom/m' })).text();
      expect(well).toContain('well');
      expect(events(well).at(-1)).toBe('[DONE]');
    } finally {
      await app.call('/api/v1/byok/keys/custom', { method: 'DELETE', session });
      await inside.stop();
    }
  });
});

describe('a stream of a chat completion', () => {
  it('is forwarded byte for byte with comments, unusual spacing and unknown fields', async () => {
    const frames = [
      ': a comment\n\n',
      'event: x\r\nid: 7\r\ndata:  {"choices" : [{"index":0,"delta":{"content":"\\u00e9 é \u{1F600}"}}] , "big":1.0e0}\r\n\r\n',
      'data: {"choices":[],"usage":{"x":1}}\n\n',
      'data: [DONE]\n\n',
    ];
    openai.reply(answer.steps(frames));
    const response = await chat(streamedWithUsage);
    expect(Buffer.from(await response.arrayBuffer()).equals(Buffer.from(frames.join('')))).toBe(true);
  });

  it('is forwarded completely for any chunk boundaries and ends with [DONE]', async () => {
    openai.reply(answer.chopped(1, { text: 'Grüße \u{1F600} an alle' }));
    const chopped = await (await chat(streamed)).text();
    const content = events(chopped)
      .slice(0, -1)
      .map(
        (data) =>
          (JSON.parse(data) as { choices: { delta?: { content?: string } }[] }).choices[0]?.delta?.content ??
          '',
      )
      .join('');
    expect(content).toBe('Grüße \u{1F600} an alle');
    expect(events(chopped).at(-1)).toBe('[DONE]');
  });

  const part = (index: number, reason: string | null) =>
    `data: {"choices":[{"index":${index},"delta":{"content":"x"},"finish_reason":${JSON.stringify(reason)}}]}\n\n`;
  const USAGE = 'data: {"choices":[],"usage":{"total_tokens":1}}\n\n';
  const ERROR = 'data: {"error":{"message":"the provider’s own"}}\n\n';

  const ENDS: [string, string[], 'done' | 'incomplete' | 'failed'][] = [
    ['the finish reason', [part(0, null), part(0, 'stop')], 'done'],
    ['the finish reason and the usage', [part(0, null), part(0, 'length'), USAGE], 'done'],
    [
      'the finish reasons of two choices',
      [part(0, null), part(1, null), part(1, 'stop'), part(0, 'stop')],
      'done',
    ],
    ['an event without a blank line', [part(0, 'stop').trimEnd()], 'done'],
    ['no event', [], 'incomplete'],
    ['comments only', [': hi\n\n'], 'incomplete'],
    ['the usage only', [USAGE], 'incomplete'],
    ['an empty finish reason', [part(0, '')], 'incomplete'],
    [
      'the finish reason of one of two choices',
      [part(0, null), part(1, null), part(0, 'stop')],
      'incomplete',
    ],
    ['half an event after the finish reason', [part(0, 'stop'), USAGE.slice(0, 20)], 'incomplete'],
    ['half a field name after the finish reason', [part(0, 'stop'), 'dat'], 'incomplete'],
    ['half a comment after the finish reason', [part(0, 'stop'), ': keep-al'], 'done'],
    ['half of [DONE] after the finish reason', [part(0, 'stop'), 'data: [DO'], 'done'],
    ['an error event', [part(0, null), ERROR], 'failed'],
    ['an error event after the finish reason', [part(0, 'stop'), ERROR], 'failed'],
    ['an error event by its type', [part(0, null), 'event: error\ndata: {"reason":"x"}\n\n'], 'failed'],
  ];
  /** What arrives of the frames: half a comment and half of `[DONE]` do not. */
  const toSent = (frames: string[]) => frames.filter((one) => !/^(: keep-al|data: \[DO)$/.test(one)).join('');

  it.each(ENDS)('that ends without [DONE] after %s', async (_name, frames, end) => {
    openai.reply(answer.steps(frames));
    const text = await (await chat(streamedWithUsage)).text();
    expect(app.events('answer_passed').at(-1)).toMatchObject({ end });
    if (end === 'done') expect(text).toBe(`${toSent(frames).trimEnd()}\n\ndata: [DONE]\n\n`);
    else expect(text).not.toContain('[DONE]');
    if (end === 'failed') expect(text).toBe(toSent(frames));
    if (end === 'incomplete')
      expect(parseLastEvent(text)).toMatchObject({ error: { code: 'upstream_incomplete' } });
  });

  const FAILURES: [string, (writer: ResponseWriter) => Promise<void>, string][] = [
    ['is reset', (writer) => writer.reset(), 'upstream_unreachable'],
    ['stalls', (writer) => writer.waitForClose(), 'upstream_timeout'],
  ];
  const failures = FAILURES.flatMap(([failure, fail, code]) =>
    ENDS.map(([name, frames, end]) => [failure, name, frames, end, fail, code] as const),
  );

  // An error after the whole answer would make the client pay for it again.
  it.each(failures)('that %s after %s', async (_failure, _name, frames, end, fail, code) => {
    openai.reply(async (writer) => {
      writer.head(200, { 'content-type': 'text/event-stream' });
      for (const one of frames) await writer.write(one);
      await fail(writer);
    });
    const text = await (await chat(streamedWithUsage)).text();
    if (end === 'done') expect(text).toBe(`${toSent(frames).trimEnd()}\n\ndata: [DONE]\n\n`);
    else expect(text).not.toContain('[DONE]');
    if (end === 'failed') expect(text).toBe(toSent(frames));
    if (end === 'incomplete') expect(parseLastEvent(text)).toMatchObject({ error: { code } });
    const shown = end === 'incomplete' ? 'failed' : end;
    expect(app.events('answer_passed').at(-1)).toMatchObject({ end: shown });
  });

  it.each<[number | null, number, 'done' | 'incomplete']>([
    [2, 1, 'incomplete'],
    [2, 2, 'done'],
    [1, 2, 'done'],
    [null, 1, 'done'],
    [0, 1, 'done'],
    [0, 0, 'incomplete'],
  ])('for n = %s that ends without [DONE] after %s finished choices is %s', async (n, count, end) => {
    openai.reply(answer.steps(Array.from({ length: count }, (_, index) => part(index, 'stop'))));
    const text = await (await chat({ ...streamed, n })).text();
    expect(app.events('answer_passed').at(-1)).toMatchObject({ end });
    expect(text.includes('[DONE]')).toBe(end === 'done');
  });

  it('ends with the first error event of the upstream', async () => {
    openai.reply(answer.steps([part(0, null), ERROR, ERROR, part(0, 'stop'), 'data: [DONE]\n\n']));
    expect(await (await chat(streamed)).text()).toBe(`${part(0, null)}${ERROR}`);
    expect(app.events('answer_passed').at(-1)).toMatchObject({ end: 'failed' });
  });

  const WHOLE = [part(0, 'stop'), 'data: [DONE]\n\n'].join('');
  const BEGINNINGS = ['', ': hi\n\n', 'event: x\n', 'id: 7\n', 'retry: 10\n', '\uFEFF', '\uFEFF: hi\n\n'];
  const untyped = [null, 'text/plain', 'text/plain; charset=utf-8', 'application/octet-stream'].flatMap(
    (contentType) => BEGINNINGS.map((beginning) => [contentType, beginning] as const),
  );
  it.each(untyped)(
    'is recognized by its first bytes: content type %s, beginning %j',
    async (contentType, beginning) => {
      const body = beginning + WHOLE;
      // In one piece, and byte by byte.
      for (const steps of [[body], [...Buffer.from(body)].map((byte) => Uint8Array.of(byte))]) {
        openai.reply(answer.steps(steps, { contentType }));
        const response = await chat(streamed);
        expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
        expect(Buffer.from(await response.arrayBuffer()).toString()).toBe(body);
      }
    },
  );

  it.each([
    ['HTML', '<html>data: x', 502],
    ['another text', 'database: x', 502],
    ['a part of a field', 'dat', 502],
    ['nothing', '', 502],
    ['JSON', '{"choices":[],"object":"chat.completion"}', 200],
    ['JSON after a byte order mark', '\uFEFF{"choices":[],"object":"chat.completion"}', 200],
  ])('is not recognized in %s without a content type', async (_name, body, status) => {
    for (const contentType of [null, 'text/plain']) {
      openai.reply(answer.reply({ body, contentType }));
      const response = await chat(streamed);
      expect([response.status, response.headers.get('content-type')]).toEqual([status, 'application/json']);
      if (status === 200) expect(Buffer.from(await response.arrayBuffer()).toString()).toBe(body);
    }
  });

  it('is not recognized without a content type where none was asked for', async () => {
    openai.reply(answer.reply({ body: WHOLE, contentType: null }));
    expect((await chat(hello)).status).toBe(502);
  });

  it.each([fault.resetAfterHeaders('text/plain'), fault.silentAfterHeaders('text/plain')])(
    'without a content type that breaks off before its first bytes is an error with a status',
    async (upstreamAnswer) => {
      openai.reply(upstreamAnswer);
      expect((await chat(streamed)).status).toBeGreaterThanOrEqual(502);
      await openai.closed(0);
    },
  );

  it('becomes JSON when the upstream does not stream', async () => {
    openai.reply(answer.reply({ status: 200, body: { choices: [], object: 'chat.completion' } }));
    const response = await chat(streamed);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(await response.json()).toEqual({ choices: [], object: 'chat.completion' });
  });
});
