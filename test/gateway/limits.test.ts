import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { findStreamError, readEventStream } from '../support/stream.ts';
import { until } from '../support/until.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const MB = 1024 * 1024;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

let openai: Upstream;
let app: TestApp;
const sockets = new Set<Socket>();

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url, REQUESTS_PER_USER: '16' } });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  openai.reset();
});

async function signedIn(): Promise<string> {
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
  return session;
}

const chat = (session: string, json: object = hello) => app.call(CHAT, { method: 'POST', session, json });

/** Starts a chat request on a separate connection and sends only `start` of its body. */
function beginRequest(session: string, framing: string, start: string | Buffer = ''): Socket {
  const { hostname, port } = new URL(app.url);
  const socket = connect(Number(port), hostname);
  sockets.add(socket);
  socket.on('error', () => undefined);
  const head = `POST ${CHAT} HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\n`;
  socket.write(`${head}Content-Type: application/json\r\n${framing}\r\n\r\n`);
  socket.write(start);
  return socket;
}

/** Declares a body and sends nothing of it. Resolves when the app has authorized the request. */
async function declareBody(session: string, bytes: number): Promise<Socket> {
  const socket = beginRequest(session, `Content-Length: ${bytes}`);
  await once(socket, 'connect');
  // Later requests have passed the same guards, so this one has too.
  for (let count = 0; count < 3; count += 1) await app.call('/api/v1/me', { session });
  return socket;
}

function sendAllButLastByte(session: string, bytes: number): Socket {
  // One long string, which is measured faster than other bytes as it arrives.
  const body = Buffer.alloc(bytes - 1, 'x').fill('"', 0, 1);
  return beginRequest(session, `Content-Length: ${bytes}`, body);
}

/** Opens `count` requests that the upstream leaves without a response. */
async function openRequests(session: string, count: number): Promise<void> {
  const body = JSON.stringify(hello);
  const before = openai.requests.length;
  openai.reply(...Array.from({ length: count }, () => fault.silent()));
  for (let opened = 0; opened < count; opened += 1)
    beginRequest(session, `Content-Length: ${body.length}`, body);
  await openai.received(before + count);
}

/** The head and body of the response on such a connection. */
async function readResponse(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  return until(
    () => text,
    (all) => all.includes('"request_id"'),
  );
}

async function expectRefusal(
  response: Awaited<ReturnType<typeof chat>>,
  status: number,
  code: string,
): Promise<void> {
  expect([response.status, await response.json()]).toMatchObject([status, { error: { code } }]);
  expect(response.headers.get('retry-after')).toBe('1');
  expect(response.headers.get('x-ops-error-source')).toBe('ops-center');
}

describe('open requests of one user', () => {
  it('are limited to REQUESTS_PER_USER for any payer: the next is refused before its body is read, other users are served', async () => {
    const session = await signedIn();
    const other = await signedIn();
    const gate = Promise.withResolvers<null>();
    openai.answerAll(answer.held(1, gate.promise));
    const running = Array.from({ length: 16 }, () => chat(session, { ...hello, stream: true }));
    await openai.received(16);
    await expectRefusal(await chat(session), 429, 'rate_limited');
    await expectRefusal(await app.call('/v1/models', { session }), 429, 'rate_limited');
    expect(await readResponse(await declareBody(session, 1000))).toMatch(/^HTTP\/1.1 429 /);
    openai.reply(answer.completion());
    expect((await chat(other)).status).toBe(200);
    gate.resolve(null);
    for (const response of await Promise.all(running)) await response.text();
    openai.answerAll(answer.completion());
    for (let count = 0; count < 20; count += 1) expect((await chat(session)).status).toBe(200);
  });

  it('may be a burst: what exceeds the limit waits and is served', async () => {
    const session = await signedIn();
    const responses = await Promise.all(Array.from({ length: 48 }, () => chat(session)));
    expect(responses.map(({ status }) => status)).toEqual(Array.from({ length: 48 }, () => 200));
    for (const response of responses) await response.text();
  });

  it('do not count requests to other paths, which have a limit of their own', async () => {
    const session = await signedIn();
    await openRequests(session, 16);
    expect((await app.call('/api/v1/me', { session })).status).toBe(200);
  });

  it('are released when clients disconnect', async () => {
    const session = await signedIn();
    for (let round = 0; round < 2; round += 1) {
      await openRequests(session, 16);
      expect((await chat(session)).status).toBe(429);
      for (const socket of sockets) socket.destroy();
      await until(
        async () => (await chat(session)).status,
        (status) => status === 200,
      );
    }
  });
});

describe('request bodies', () => {
  it('hold at most a third of the memory for one user, until they are closed', async () => {
    const session = await signedIn();
    const held = sendAllButLastByte(session, 32 * MB);
    // By then the app has read all bytes except those in the kernel's buffers. Requests of 12 MB would delay that.
    await until(() => held.writableLength === 0);
    const large = { ...hello, pad: 'x'.repeat(12 * MB) };
    const refused = await until(
      () => chat(session, large),
      ({ status }) => status !== 200,
    );
    await expectRefusal(refused, 429, 'rate_limited');
    // A body that fits is served.
    expect((await chat(session)).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await until(
      async () => (await chat(session, large)).status,
      (status) => status === 200,
    );
  });

  it('that fill the memory with incomplete requests make room: the slowest is a 408', async () => {
    const users = await Promise.all(Array.from({ length: 4 }, signedIn));
    const held = users.map((user) => sendAllButLastByte(user, 32 * MB - 1024));
    const responses = held.map((socket) => {
      let text = '';
      socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
      return () => text;
    });
    await until(() => held.every((socket) => socket.writableLength === 0));
    const session = await signedIn();
    // Until the app has read what is in the kernel's buffers, there is memory without ending any.
    const ended = await until(
      async () => {
        expect((await chat(session, { ...hello, pad: 'x'.repeat(3 * MB) })).status).toBe(200);
        return responses.map((read) => read()).filter((text) => text !== '');
      },
      (texts) => texts.length > 0,
    );
    expect(ended).toHaveLength(1);
    expect(ended[0]).toMatch(
      /^HTTP\/1.1 408 [^]*connection: close[^]*"error":\{[^]*"code":"request_timeout"/i,
    );
  });

  it('hold no memory while they are only declared', async () => {
    for (let count = 0; count < 4; count += 1) {
      const holder = await signedIn();
      for (const size of [32, 31]) await declareBody(holder, size * MB);
    }
    const session = await signedIn();
    expect((await chat(session, { ...hello, pad: 'x'.repeat(3 * MB) })).status).toBe(200);
  });

  it('count only their bytes after they were sent to the upstream', async () => {
    const session = await signedIn();
    const gate = Promise.withResolvers<null>();
    openai.answerAll(answer.held(1, gate.promise));
    const large = { ...hello, stream: true, pad: 'x'.repeat(20 * MB) };
    const running = [];
    for (let count = 1; count <= 4; count += 1) {
      running.push(chat(session, large));
      await openai.received(count);
    }
    gate.resolve(null);
    for (const response of await Promise.all(running)) expect(response.status).toBe(200);
  });

  it('that stop are a 408 in the shape of the protocol', async () => {
    const session = await signedIn();
    const socket = beginRequest(session, 'Content-Length: 1000', '{"model":');
    expect(await readResponse(socket)).toMatch(
      /^HTTP\/1.1 408 [^]*x-ops-error-source: ops-center[^]*"error":\{[^]*"code":"request_timeout"/,
    );
  });

  it('that are declared too large are refused before they are read', async () => {
    const session = await signedIn();
    expect(await readResponse(await declareBody(session, 33 * MB))).toMatch(/^HTTP\/1.1 413 /);
  });
});

it('a response that its client does not read keeps its slot until the client disconnects', async () => {
  const session = await signedIn();
  openai.reply(answer.completion({ text: 'x'.repeat(24 * MB) }));
  const body = JSON.stringify(hello);
  const slow = beginRequest(session, `Content-Length: ${body.length}`, body).pause();
  await until(() => app.events('answer_passed').at(-1)?.['status'] === 200 && openai.requests.length === 1);
  await openRequests(session, 15);
  expect((await chat(session)).status).toBe(429);
  slow.destroy();
  await until(
    async () => (await chat(session)).status,
    (status) => status === 200,
  );
});

it('responses that a client does not read count for the memory of its user', async () => {
  const session = await signedIn();
  const body = JSON.stringify(hello);
  const large = answer.completion({ text: 'x'.repeat(30 * MB) });
  openai.reply(large, large, large);
  const unread: Socket[] = [];
  for (let count = 0; count < 2; count += 1) {
    const socket = beginRequest(session, `Content-Length: ${body.length}`, body);
    // The response begins when the app has read the whole response of the provider.
    await once(socket, 'data');
    unread.push(socket.pause());
  }
  const third = await chat(session);
  expect([third.status, third.headers.get('x-should-retry')]).toEqual([429, 'false']);
  expect(((await third.json()) as { error: { code: string } }).error.code).toBe('rate_limited');
  expect((await chat(await signedIn())).status).toBe(200);
  for (const socket of unread) socket.destroy();
  openai.reply(large);
  await until(
    async () => (await chat(session)).status,
    (status) => status === 200,
  );
});

describe('the events of streams', () => {
  const chunk = (bytes: number) =>
    `data: {"choices":[{"index":0,"delta":{"content":"${'x'.repeat(bytes)}"},"finish_reason":"stop"}]}`;
  const streamed = { ...hello, stream: true };

  /** Opens a stream whose event of this size does not end. */
  async function holdEvent(session: string, bytes: number): Promise<void> {
    const index = openai.requests.length;
    openai.reply(answer.steps([chunk(bytes), { until: new Promise(() => undefined) }]));
    const body = JSON.stringify(streamed);
    beginRequest(session, `Content-Length: ${body.length}`, body);
    await openai.received(index + 1);
    await openai.sent(index, bytes);
  }

  async function readError(session: string, frame: string): Promise<{ code: string } | undefined> {
    openai.reply(answer.steps([`${frame}\n\n`, 'data: [DONE]\n\n']));
    return findStreamError(await readEventStream(await chat(session, streamed)).events);
  }

  it('count for the memory of their user while they are large, and fail no stream of usual events', async () => {
    const session = await signedIn();
    for (let count = 0; count < 5; count += 1) await holdEvent(session, 7.5 * MB);
    await holdEvent(session, 6.5 * MB);
    const large = () => readError(session, chunk(2 * MB));
    expect(await until(large)).toMatchObject({ code: 'rate_limited' });
    expect(await readError(session, chunk(0.2 * MB))).toBeUndefined();
    expect(await readError(await signedIn(), chunk(7.5 * MB))).toBeUndefined();
    for (const socket of sockets) socket.destroy();
    await until(large, (error) => error === undefined);
  });
});

describe('answers of an address that a user brought', () => {
  let session: string;
  beforeAll(async () => {
    session = await signedIn();
    await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint: openai.url });
  });

  it.each([
    ['custom/m', 502],
    ['gpt-4o', 200],
  ])('may be smaller than those of a provider: model %s', async (model, status) => {
    openai.reply(answer.completion({ text: 'x'.repeat(9 * MB) }));
    expect((await chat(session, { ...hello, model })).status).toBe(status);
  });

  it.each([
    ['custom/m', 'upstream_malformed'],
    ['gpt-4o', undefined],
  ])('may have smaller events than those of a provider: model %s', async (model, code) => {
    openai.reply(answer.completion({ text: `${'x'.repeat(3 * MB)} end` }));
    const response = await chat(session, { ...hello, model, stream: true });
    expect(findStreamError(await readEventStream(response).events)?.code).toBe(code);
  });
});
