import { once } from 'node:events';
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { gunzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import OpenAI from 'openai';
import {
  ALLOWED_HEADERS,
  answer,
  fault,
  HOSTILE_HEADERS,
  startUpstream,
  type Answer,
  type Upstream,
} from './support/upstream.ts';

let upstream: Upstream;
let agent: Agent;

beforeEach(async () => {
  upstream = await startUpstream({ waitMs: 5_000 });
  agent = new Agent({ keepAlive: true });
});
afterEach(async () => {
  agent.destroy();
  await upstream.stop();
});

interface CallOptions {
  key?: string;
  isStream?: boolean;
  text?: string;
}

function call({ key = 'sk-test', isStream = false, text = 'hi' }: CallOptions = {}) {
  const body = JSON.stringify({
    model: 'gpt-4o',
    stream: isStream,
    messages: [{ role: 'user', content: text }],
  });
  const outgoing = httpRequest(`${upstream.url}/chat/completions`, {
    method: 'POST',
    agent,
    headers: { Authorization: `Bearer ${key}`, 'X-Mixed-Case': 'one', 'content-type': 'application/json' },
  });
  outgoing.on('error', () => undefined);
  outgoing.end(body);
  return outgoing;
}

async function headersOf(options?: CallOptions): Promise<IncomingMessage> {
  const [response] = (await once(call(options), 'response')) as [IncomingMessage];
  return response;
}

/** The received part of the body, and whether it is complete. */
async function read(response: IncomingMessage): Promise<{ body: Buffer; isComplete: boolean }> {
  const parts: Buffer[] = [];
  try {
    for await (const part of response as AsyncIterable<Buffer>) parts.push(part);
  } catch {
    return { body: Buffer.concat(parts), isComplete: false };
  }
  return { body: Buffer.concat(parts), isComplete: true };
}

async function statusAndText(options?: CallOptions): Promise<[number | undefined, string]> {
  const response = await headersOf(options);
  return [response.statusCode, (await read(response)).body.toString('utf8')];
}

describe('a recorded request', () => {
  it('has the method, path, key, all header lines as sent, and the exact body', async () => {
    const [status] = await statusAndText({ key: 'sk-mine', text: 'Grüße' });
    const request = await upstream.received(1);
    expect(status).toBe(200);
    expect(request).toMatchObject({ index: 0, method: 'POST', path: '/v1/chat/completions', key: 'sk-mine' });
    expect(request.rawHeaders).toContainEqual(['X-Mixed-Case', 'one']);
    expect(request.headers['x-mixed-case']).toBe('one');
    expect(request.body.toString()).toBe(
      '{"model":"gpt-4o","stream":false,"messages":[{"role":"user","content":"Grüße"}]}',
    );
    expect(request.json()['model']).toBe('gpt-4o');
    expect(request.bodyAtMs).toBeGreaterThanOrEqual(request.headersAtMs);
    expect(request.answeredAtMs).toBeGreaterThanOrEqual(request.bodyAtMs ?? Infinity);
  });

  it('names its connection; the upstream counts open connections', async () => {
    await statusAndText();
    await statusAndText();
    expect(upstream.requests.map((request) => request.connection.id)).toEqual([0, 0]);
    expect(upstream.openConnections).toBe(1);
    agent.destroy();
    await upstream.closed(1);
    expect(upstream.openConnections).toBe(0);
    expect(upstream.requests[1]?.connection.closedBy).toBe('client');
  });

  it('is awaited for the configured time only', async () => {
    const shortWaits = await startUpstream({ waitMs: 20 });
    await expect(shortWaits.received(1)).rejects.toThrow(
      'Request 1 (0 were received): did not happen within 20 ms',
    );
    await shortWaits.stop();
  });

  it('is not awaited after a stop', async () => {
    const waiting = upstream.received(1);
    await Promise.all([expect(waiting).rejects.toThrow('was stopped'), upstream.stop()]);
  });
});

describe('the script', () => {
  it("uses a key's answers first and repeats the last of them, then the queue, then the default", async () => {
    upstream.answerKey('sk-a', answer.error(401), { status: 418, body: 'own' });
    upstream.reply({ status: 201, body: { any: 'thing' } });
    upstream.answerAll({ status: 202 });
    const statuses = [];
    for (const key of ['sk-a', 'sk-b', 'sk-a', 'sk-a', 'sk-b'])
      statuses.push((await statusAndText({ key }))[0]);
    expect(statuses).toEqual([401, 201, 418, 418, 202]);
    upstream.reset();
    expect(upstream.requests).toHaveLength(0);
    expect((await statusAndText({ key: 'sk-a' }))[0]).toBe(200);
  });

  it('refuses keys that are not in its list', async () => {
    const strict = await startUpstream({ keys: ['sk-good'] });
    const ask = (apiKey: string) =>
      new OpenAI({ apiKey, baseURL: strict.url, maxRetries: 0 }).chat.completions.create({
        model: 'm',
        messages: [],
      });
    await expect(ask('sk-other')).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    expect((await ask('sk-good')).choices[0]?.message.content).toBe('Hello from the upstream.');
    await strict.stop();
  });

  it('rejects the stop when an answer of the test threw', async () => {
    const broken = await startUpstream();
    broken.reply(() => {
      throw new Error('oops');
    });
    await expect(fetch(`${broken.url}/models`)).rejects.toThrow();
    await expect(broken.stop()).rejects.toThrow(AggregateError);
  });
});

describe('valid answers', () => {
  it('are accepted by the official SDK, streamed, with tools and usage', async () => {
    const client = new OpenAI({ apiKey: 'sk-x', baseURL: upstream.url, maxRetries: 0 });
    upstream.reply(answer.chopped(3, { toolCalls: [{ name: 'clock', arguments: '{"zone":"UTC"}' }] }));
    const stream = client.chat.completions.stream({
      model: 'm',
      messages: [],
      stream_options: { include_usage: true },
    });
    const whole = await stream.finalChatCompletion();
    expect(whole.choices[0]?.message.tool_calls?.[0]).toMatchObject({
      function: { name: 'clock', arguments: '{"zone":"UTC"}' },
    });
    expect(whole.usage?.total_tokens).toBe(18);
    upstream.reply(answer.commented(': beat\n\n', { text: 'still here' }));
    expect(await client.chat.completions.stream({ model: 'm', messages: [] }).finalContent()).toBe(
      'still here',
    );
    expect((await client.models.list()).data).toHaveLength(1);
  });

  it('wait in the middle of a stream until the test continues them', async () => {
    const gate = Promise.withResolvers<undefined>();
    upstream.reply(answer.held(1, gate.promise, { text: 'late' }));
    const response = await headersOf({ isStream: true });
    const [first] = (await once(response, 'data')) as [Buffer];
    expect(first.toString()).not.toContain('late');
    gate.resolve(undefined);
    expect((await read(response)).body.toString()).toMatch(/late[\s\S]*\[DONE\]\n\n$/);
  });

  it('can be gzip, HTML, a redirect, or an error that contains the key', async () => {
    upstream.reply(
      answer.gzipped(),
      answer.html(),
      answer.redirect(307, 'http://127.0.0.1:1/'),
      answer.keyEcho(),
    );
    const zipped = await read(await headersOf());
    expect(JSON.parse(gunzipSync(zipped.body).toString())).toHaveProperty('choices');
    expect((await headersOf()).headers['content-type']).toContain('text/html');
    expect((await headersOf()).headers.location).toBe('http://127.0.0.1:1/');
    expect((await statusAndText({ key: 'sk-sec"ret' }))[1]).toContain(
      Buffer.from('sk-sec"ret').toString('base64'),
    );
  });

  it('can have sixty hostile headers and the allowed ones', async () => {
    upstream.reply(answer.hostileHeaders());
    const { headers } = await headersOf();
    const names = HOSTILE_HEADERS.map(([name]) => name);
    expect(new Set(names).size).toBe(60);
    for (const [name, value] of [...HOSTILE_HEADERS, ...ALLOWED_HEADERS]) {
      expect([name, [headers[name]].flat().join()]).toEqual([name, value]);
    }
  });
});

describe('faults', () => {
  it('that never respond keep the client waiting and record when it disconnects', async () => {
    upstream.answerAll(fault.silent());
    const outgoing = call();
    await upstream.received(1);
    const leftAtMs = performance.now();
    outgoing.destroy();
    expect(await upstream.closed(0)).toBeGreaterThanOrEqual(leftAtMs);
    expect(upstream.requests[0]?.connection.closedBy).toBe('client');
    expect(upstream.requests[0]?.answeredAtMs).toBeUndefined();
  });

  it.each<[string, Answer]>([
    ['reads no body', fault.readsNoBody()],
    ['sends endless headers', fault.slowHeaders(1)],
  ])('of an upstream that %s give no response', async (_, upstreamAnswer) => {
    upstream.reply(upstreamAnswer);
    const outgoing = call();
    await upstream.received(1);
    let isAnswered = false;
    outgoing.on('response', () => {
      isAnswered = true;
    });
    outgoing.destroy();
    await upstream.closed(0);
    expect(isAnswered).toBe(false);
    expect(upstream.requests[0]?.body.length === 0).toBe(upstreamAnswer.beforeBody === true);
  });

  it.each<[string, Answer]>([
    ['before the body', fault.resetBeforeBody()],
    ['before the headers', fault.resetBeforeHeaders()],
    ['in the headers', fault.resetInHeaders()],
  ])('that reset %s are a reset for the client', async (_, upstreamAnswer) => {
    upstream.reply(upstreamAnswer);
    const [error] = (await once(call(), 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
    await upstream.closed(0);
    expect(upstream.requests[0]?.connection.closedBy).toBe('upstream');
  });

  it.each<[string, Answer, string | RegExp]>([
    ['after the headers', fault.resetAfterHeaders(), ''],
    ['in a JSON body', fault.resetInBody(), '{"id":"chatcmpl-0","object":'],
    ['between frames', fault.resetInStream({ afterFrames: 3 }), /^(data: \{.*\}\n\n){3}$/],
    ['in a frame', fault.resetInStream({ cut: 'in-frame' }), /^(data: \{.*\}\n\n){2}data: \{[^\n]+$/],
    ['in a code point', fault.resetInStream({ cut: 'in-code-point' }), /\ufffd$/],
    ['by hanging up', fault.hangsUpInStream(), /\}\n\n$/],
    ['before the announced length', fault.shortBody(), '{"id":"chat'],
  ])('that break the response %s leave it incomplete there', async (_, upstreamAnswer, expected) => {
    upstream.reply(upstreamAnswer);
    const { body, isComplete } = await read(await headersOf({ isStream: true }));
    expect(isComplete).toBe(false);
    expect(body.toString('utf8')).toMatch(expected);
    if (expected === '') expect(body).toHaveLength(0);
  });

  it('that end early or report an error end correctly, without [DONE]', async () => {
    upstream.reply(fault.endsEarly(), fault.errorEvent());
    const early = await read(await headersOf({ isStream: true }));
    const failed = await read(await headersOf({ isStream: true }));
    expect([early.isComplete, failed.isComplete]).toEqual([true, true]);
    expect(early.body.toString()).not.toMatch(/\[DONE\]|"stop"/);
    expect(failed.body.toString()).toMatch(/data: \{"error":\{.*\n\n$/);
  });

  it('that keep the connection open after [DONE] do not end the response', async () => {
    upstream.reply(fault.openAfterDone());
    const response = await headersOf({ isStream: true });
    let text = '';
    await new Promise<void>((resolve) => {
      response.on('data', (part: Buffer) => {
        text += part.toString();
        if (text.endsWith('[DONE]\n\n')) resolve();
      });
    });
    expect(response.readableEnded).toBe(false);
    response.destroy();
    await upstream.closed(0);
  });

  it.each<[string, Answer]>([
    ['JSON', fault.endlessJson()],
    ['one line', fault.endlessLine()],
    ['frames', answer.endlessStream({ frameBytes: 65_536 })],
  ])('that send endless %s stall while the client does not read', async (_, upstreamAnswer) => {
    upstream.reply(upstreamAnswer);
    const response = await headersOf({ isStream: true });
    response.pause();
    const stalledAt = await upstream.stalled(0);
    expect(upstream.requests[0]?.pausedWrites).toBeGreaterThan(0);
    response.resume();
    await upstream.sent(0, stalledAt + 1_000_000);
    response.destroy();
    await upstream.closed(0);
  });

  it('that refuse connections do so the given number of times', async () => {
    upstream.refuseConnections(1);
    const [error] = (await once(call(), 'error')) as [NodeJS.ErrnoException];
    expect(error.code).toBe('ECONNRESET');
    expect((await statusAndText())[0]).toBe(200);
    expect(upstream.connections.map((connection) => connection.closedBy)).toEqual(['upstream', undefined]);
  });
});

describe('start and stop', () => {
  it('ends pending requests, frees the port, and may be repeated', async () => {
    upstream.answerAll(fault.silent());
    const failing = once(call(), 'error');
    await upstream.received(1);
    await upstream.stop();
    await upstream.stop();
    expect(await failing).toMatchObject([{ code: 'ECONNRESET' }]);
    const next = await startUpstream({ port: upstream.port });
    await next.stop();
  });

  it('listens on loopback only', async () => {
    await expect(startUpstream({ host: '0.0.0.0' })).rejects.toThrow('loopback');
  });
});
