import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
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
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url } });
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

/** Begins a chat request on a connection of its own and sends nothing of its body beyond `begun`. */
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

/** Announces a body and sends nothing of it; the app has let the request in when this resolves. */
async function declareBody(session: string, bytes: number): Promise<Socket> {
  const socket = beginRequest(session, `Content-Length: ${bytes}`);
  await once(socket, 'connect');
  // The same checks for requests that came later are over: so they are for this one.
  for (let count = 0; count < 3; count += 1) await app.call('/api/v1/me', { session });
  return socket;
}

/** Sends a body but for its last byte. */
function sendAllButLastByte(session: string, bytes: number): Socket {
  return beginRequest(session, `Content-Length: ${bytes}`, Buffer.alloc(bytes - 1, 'x'));
}

/** Fills the first `count` places of a user with requests that the upstream leaves unanswered. */
async function openRequests(session: string, count: number): Promise<void> {
  const body = JSON.stringify(hello);
  const before = openai.requests.length;
  openai.reply(...Array.from({ length: count }, () => fault.silent()));
  for (let opened = 0; opened < count; opened += 1)
    beginRequest(session, `Content-Length: ${body.length}`, body);
  await openai.received(before + count);
}

/** The head and the body of the answer on such a connection. */
async function readResponse(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (piece: Buffer) => (text += piece.toString()));
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
  it('are at most 16 whoever pays; the 17th is refused before its body is read, and other users are served', async () => {
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

  it('are given back when clients leave', async () => {
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

describe('bodies that are being read', () => {
  it('take of one user at most a third of the room, and give it back', async () => {
    const session = await signedIn();
    const held = sendAllButLastByte(session, 32 * MB);
    // All but what the kernel holds has been read by then; requests of 12 MB each would slow that down.
    await until(() => held.writableLength === 0);
    const large = { ...hello, pad: 'x'.repeat(12 * MB) };
    const refused = await until(
      () => chat(session, large),
      ({ status }) => status !== 200,
    );
    await expectRefusal(refused, 429, 'rate_limited');
    // What fits in is served.
    expect((await chat(session)).status).toBe(200);
    for (const socket of sockets) socket.destroy();
    await until(
      async () => (await chat(session, large)).status,
      (status) => status === 200,
    );
  });

  it('take all of the room together, beyond which requests are asked to come later', async () => {
    for (let count = 0; count < 4; count += 1) sendAllButLastByte(await signedIn(), 32 * MB - 1024);
    const session = await signedIn();
    const large = { ...hello, pad: 'x'.repeat(3 * MB) };
    const filled = await until(
      () => chat(session, large),
      ({ status }) => status !== 200,
    );
    await expectRefusal(filled, 503, 'busy');
    const piece = Buffer.concat([Buffer.from(`${(4 * MB).toString(16)}\r\n`), Buffer.alloc(4 * MB, 'x')]);
    const socket = beginRequest(session, 'Transfer-Encoding: chunked', piece);
    expect(await readResponse(socket)).toMatch(/^HTTP\/1.1 503 [^]*"code":"busy"/);
    for (const held of sockets) held.destroy();
    await until(
      async () => (await chat(session, large)).status,
      (status) => status === 200,
    );
  });

  it('take nothing by being announced alone', async () => {
    for (let count = 0; count < 4; count += 1) {
      const holder = await signedIn();
      for (const size of [32, 31]) await declareBody(holder, size * MB);
    }
    const session = await signedIn();
    expect((await chat(session, { ...hello, pad: 'x'.repeat(3 * MB) })).status).toBe(200);
  });

  it('count with their bytes alone once they are on their way', async () => {
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

  it('that are announced too large are refused for their size', async () => {
    const session = await signedIn();
    expect(await readResponse(await declareBody(session, 33 * MB))).toMatch(/^HTTP\/1.1 413 /);
  });
});

it('an answer that its client does not take keeps its place until the client has gone', async () => {
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
