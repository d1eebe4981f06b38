import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import type { Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { findStreamError, readEventStream, type OpenStream } from '../support/stream.ts';
import { until } from '../support/until.ts';
import { answer, fault, startUpstream, type Upstream } from '../support/upstream.ts';

const CHAT = '/v1/chat/completions';
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
/** Longer than the timeout of a test. */
const LONG_GRACE = { SHUTDOWN_GRACE_MS: '60000' };
const SHORT_GRACE = { SHUTDOWN_GRACE_MS: '300' };

let openai: Upstream;
beforeAll(async () => {
  openai = await startUpstream();
});
afterAll(() => openai.stop());
afterEach(() => {
  openai.reset();
});

interface RunningApp extends AsyncDisposable {
  app: TestApp;
  session: string;
  /** Sends a request without streaming. */
  chat(json?: object): ReturnType<TestApp['call']>;
  stream(): Promise<OpenStream>;
}

async function startRunningApp(env: Record<string, string>): Promise<RunningApp> {
  const app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url, ...env } });
  const session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
  const chat = (json: object = hello) => app.call(CHAT, { method: 'POST', session, json });
  return {
    app,
    session,
    chat,
    async stream() {
      const stream = readEventStream(await chat({ ...hello, stream: true }));
      await stream.first;
      return stream;
    },
    [Symbol.asyncDispose]: () => app.stop(),
  };
}

/** Opens a raw connection; `text` returns the received text. */
async function openConnection(app: TestApp): Promise<{ socket: Socket; text: () => string }> {
  const { hostname, port } = new URL(app.url);
  const socket = connect(Number(port), hostname);
  let text = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(socket, 'connect');
  return { socket, text: () => text };
}

async function connects(app: TestApp, port = app.config.port): Promise<boolean> {
  const socket = connect(port, app.config.host);
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function expectNothingListens(app: TestApp): Promise<void> {
  expect(await connects(app)).toBe(false);
  expect(await connects(app, app.config.metricsPort)).toBe(false);
}

describe('a stopping server', () => {
  it('refuses new requests in the format of their protocol, while an active stream finishes normally', async () => {
    await using running = await startRunningApp(LONG_GRACE);
    const { app, session } = running;
    const resume = Promise.withResolvers<undefined>();
    openai.reply(answer.held(2, resume.promise));
    const stream = await running.stream();

    const stopped = app.stop();
    expect(app.stop()).toBe(stopped);
    const chat = await running.chat();
    expect([chat.status, await chat.json()]).toMatchObject([
      503,
      { error: { code: 'draining', type: 'server_error' } },
    ]);
    const me = await app.call('/api/v1/me', { session });
    expect([me.status, await me.json()]).toMatchObject([503, { code: 'draining', status: 503 }]);
    for (const { headers } of [chat, me])
      expect([headers.get('retry-after'), headers.get('connection')]).toEqual(['1', 'close']);
    const ready = await app.call('/readyz');
    expect([ready.status, await ready.json()]).toEqual([503, { status: 'not_ready' }]);
    expect((await app.call('/livez')).status).toBe(200);

    resume.resolve(undefined);
    const events = await stream.events;
    expect(events.at(-1)).toBe('[DONE]');
    expect(findStreamError(events)).toBeUndefined();
    await stopped;
    await expectNothingListens(app);
  });

  it('ends a stream that exceeds the grace period with the protocol’s error event, and its upstream request', async () => {
    await using running = await startRunningApp(SHORT_GRACE);
    openai.reply(answer.endlessStream({ everyMs: 10 }));
    const stream = await running.stream();
    await running.app.stop();
    expect(findStreamError(await stream.events)).toMatchObject({ code: 'draining' });
    await openai.closed(0);
  });

  it('answers a request with `draining` if it still waits for its upstream after the grace period', async () => {
    await using running = await startRunningApp(SHORT_GRACE);
    openai.reply(fault.silent());
    const waiting = running.chat();
    await openai.received(1);
    await running.app.stop();
    const response = await waiting;
    expect([response.status, await response.json()]).toMatchObject([503, { error: { code: 'draining' } }]);
  });

  it('does not wait for a client that never finishes its body, and answers it', async () => {
    await using running = await startRunningApp(SHORT_GRACE);
    const { app, session } = running;
    const { socket, text } = await openConnection(app);
    const head = [
      `POST ${CHAT} HTTP/1.1`,
      `Host: ${new URL(app.url).host}`,
      `Cookie: session=${session}`,
      'Content-Type: application/json',
      'Content-Length: 1000',
    ].join('\r\n');
    socket.write(`${head}\r\nExpect: 100-continue\r\n\r\n{"model":`);
    await once(socket, 'data');
    // The first request was admitted before this one, so it now waits for its body.
    await (await running.chat()).text();
    const ended = once(socket, 'close');
    await app.stop();
    await ended;
    expect(text()).toMatch(/HTTP\/1\.1 503 [\s\S]*"code":"draining"/);
  });

  it('does not wait for an incomplete request of an anonymous client', async () => {
    await using running = await startRunningApp(LONG_GRACE);
    const { socket, text } = await openConnection(running.app);
    socket.write(
      `POST /auth/backchannel-logout HTTP/1.1\r\nHost: ${new URL(running.app.url).host}\r\n` +
        'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n' +
        'Expect: 100-continue\r\n\r\nlogout_token=',
    );
    await once(socket, 'data');
    const ended = once(socket, 'close');
    await running.app.stop();
    await ended;
    // The connection was closed: the time limit of the form would have sent a response.
    expect(text()).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  });

  it('finishes a response to a slow client', async () => {
    await using running = await startRunningApp(LONG_GRACE);
    const { app, session } = running;
    const filler = 'x'.repeat(24 * 1024 * 1024);
    openai.reply({ body: { choices: [], filler } });
    const { socket, text } = await openConnection(app);
    const body = JSON.stringify(hello);
    socket.pause();
    socket.write(
      `POST ${CHAT} HTTP/1.1\r\nHost: ${new URL(app.url).host}\r\nCookie: session=${session}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await until(
      () => app.events('answer_passed').length,
      (count) => count === 1,
    );
    const stopped = app.stop();
    const ended = once(socket, 'close');
    socket.resume();
    await stopped;
    await ended;
    expect(text().endsWith('"}')).toBe(true);
  });

  it('stops at once if there is no request, even with an unused connection of a browser', async () => {
    await using running = await startRunningApp(LONG_GRACE);
    const { socket } = await openConnection(running.app);
    const ended = once(socket, 'close');
    await running.app.stop();
    await ended;
    await expectNothingListens(running.app);
  });
});

describe('a client with an incomplete request', () => {
  it('has no time limit for the whole request, and one for its headers that is longer than an idle connection', async () => {
    await using running = await startRunningApp(SHORT_GRACE);
    const servers: Server[] = [];
    // Reads the limits from Node's diagnostics channel instead of waiting for a minute.
    const note = (message: unknown) => servers.push((message as { server: Server }).server);
    subscribe('http.server.request.start', note);
    await running.app.call('/livez');
    unsubscribe('http.server.request.start', note);
    expect(servers.at(-1)).toMatchObject({
      keepAliveTimeout: 75_000,
      headersTimeout: 80_000,
      requestTimeout: 0,
    });
  });

  it('is disconnected after 10 s, with a 408 where the body is read', async () => {
    await using running = await startRunningApp(SHORT_GRACE);
    const { app, session } = running;
    const begin = async (request: string) => {
      const { socket, text } = await openConnection(app);
      const ended = once(socket, 'close');
      socket.write(
        `${request}\r\nHost: ${new URL(app.url).host}\r\nCookie: session=${session}\r\nContent-Length: 1000\r\n\r\n{`,
      );
      await ended;
      return text();
    };
    const [logout, add, unread] = await Promise.all([
      begin('POST /auth/backchannel-logout HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded'),
      begin('POST /api/v1/byok/keys/add HTTP/1.1\r\nContent-Type: application/json'),
      begin('GET /livez HTTP/1.1'),
    ]);
    const problem =
      /^HTTP\/1\.1 408 [^]*connection: close[^]*application\/problem\+json[^]*"code":"request_timeout"/i;
    expect(logout).toMatch(problem);
    expect(add).toMatch(problem);
    // Answered at once; the rest of its body was awaited for some time.
    expect(unread).toMatch(/^HTTP\/1\.1 200 /);
  });
});
