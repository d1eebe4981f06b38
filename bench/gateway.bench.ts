import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { createUser } from '../test/support/stack.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../test/support/upstream.ts';
import { printTimes } from './table.ts';

const ROUNDS = 100;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

let openai: Upstream;
let app: TestApp;
let session: string;

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url, STREAM_SILENCE_MS: '100' } });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});

const send = (json: object, signal: AbortSignal) =>
  app.call('/v1/chat/completions', { method: 'POST', session, json, signal });

/** Time from the client's disconnect to the end of the upstream connection. */
async function cancelMs(upstreamAnswer: Answer, stream: boolean, untilAnswered: boolean): Promise<number> {
  openai.reset();
  openai.reply(upstreamAnswer);
  const disconnect = new AbortController();
  const response = send({ ...hello, stream }, disconnect.signal);
  response.catch(() => undefined);
  await openai.received(1);
  if (untilAnswered) await (await response).body?.getReader().read();
  const disconnectedAtMs = performance.now();
  disconnect.abort();
  return (await openai.closed(0)) - disconnectedAtMs;
}

/**
 * Same for an upstream without an HTTP server: it accepts the connection and sends nothing (so a TLS handshake hangs),
 * or stops reading after the start of the request body.
 */
async function cancelRawMs(model: string, pad: number, raw: RawUpstream): Promise<number> {
  const disconnect = new AbortController();
  const accepted = once(raw.server, 'connection') as Promise<[Socket]>;
  send({ ...hello, model, pad: 'x'.repeat(pad) }, disconnect.signal).catch(() => undefined);
  const [socket] = await accepted;
  socket.on('error', () => undefined);
  await once(socket, 'data');
  socket.pause();
  const closed = once(socket, 'close');
  const disconnectedAtMs = performance.now();
  disconnect.abort();
  socket.resume();
  await closed;
  return performance.now() - disconnectedAtMs;
}

interface RawUpstream {
  server: Server;
  port: number;
}

async function listenRaw(): Promise<RawUpstream> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

/** Same for a client that does not read the response before it disconnects. */
async function cancelSlowReaderMs(): Promise<number> {
  openai.reset();
  openai.reply(answer.endlessStream({ frameBytes: 65_536 }));
  const { hostname, port } = new URL(app.url);
  const client = connect(Number(port), hostname);
  const body = JSON.stringify({ ...hello, stream: true });
  const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:${port}\r\nCookie: session=${session}\r\n`;
  client.write(`${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
  client.pause();
  await openai.received(1);
  await openai.stalled(0, 100);
  const disconnectedAtMs = performance.now();
  client.destroy();
  return (await openai.closed(0)) - disconnectedAtMs;
}

async function repeat(measure: () => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) times.push(await measure());
  return times;
}

it('measures how soon an upstream connection is closed after the client disconnected', async () => {
  const silent = await listenRaw();
  const unread = await listenRaw();
  for (const [label, endpoint] of [
    ['silent', `https://127.0.0.1:${silent.port}`],
    ['unread', `http://127.0.0.1:${unread.port}`],
  ] as const) {
    await app.call('/api/v1/byok/keys/custom', { method: 'DELETE', session });
    await addKey(app, session, { provider: 'custom', key: 'some-key', endpoint, label });
    const raw = label === 'silent' ? silent : unread;
    const pad = label === 'silent' ? 0 : 16 * 1024 * 1024;
    const name = label === 'silent' ? 'while connecting (TLS handshake)' : 'while the request is being sent';
    printTimes('client disconnected -> upstream closed', {
      [name]: await repeat(() => cancelRawMs('custom/m', pad, raw)),
    });
    raw.server.close();
  }
  printTimes('client disconnected -> upstream closed', {
    'waiting for the first byte': await repeat(() => cancelMs(fault.silent(), true, false)),
    'waiting for the first byte, when the response has begun': await repeat(() =>
      cancelMs(fault.silent(), true, true),
    ),
    'in the middle of a stream': await repeat(() =>
      cancelMs(answer.endlessStream({ everyMs: 5 }), true, true),
    ),
    'in a stream that has stalled': await repeat(() =>
      cancelMs(answer.held(1, new Promise(() => undefined)), true, true),
    ),
    'in a stream that the client does not read': await repeat(() => cancelSlowReaderMs()),
    'in the middle of a response without streaming': await repeat(() =>
      cancelMs(fault.slowBody(), false, false),
    ),
  });
});

it('measures what the gateway adds to a small request', async () => {
  openai.reset();
  const timed = (send: () => Promise<{ text(): Promise<string> }>) => async () => {
    const startedAtMs = performance.now();
    await (await send()).text();
    return performance.now() - startedAtMs;
  };
  const body = JSON.stringify(hello);
  const headers = { 'content-type': 'application/json', authorization: 'Bearer sk-direct' };
  const direct = timed(() => fetch(`${openai.url}/chat/completions`, { method: 'POST', body, headers }));
  const through = timed(() => app.call('/v1/chat/completions', { method: 'POST', session, json: hello }));
  await repeat(through);
  printTimes('a small request with an immediate response', {
    'directly to the upstream': await repeat(direct),
    'through the gateway': await repeat(through),
  });
});
