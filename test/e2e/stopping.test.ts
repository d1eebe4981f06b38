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
/** Longer than a test may take: whoever waits for it fails. */
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
  /** A request that waits for its answer. */
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

/** A connection of a client's own; `text` gathers what comes. */
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

describe('a server that is told to stop', () => {
  it('refuses new requests, each in its protocol’s shape, while a stream that is under way finishes untouched', async () => {
    await using place = await startRunningApp(LONG_GRACE);
    const { app, session } = place;
    const goOn = Promise.withResolvers<undefined>();
    openai.reply(answer.held(2, goOn.promise));
    const stream = await place.stream();

    const stopped = app.stop();
    expect(app.stop()).toBe(stopped);
    const chat = await place.chat();
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

    goOn.resolve(undefined);
    const events = await stream.events;
    expect(events.at(-1)).toBe('[DONE]');
    expect(findStreamError(events)).toBeUndefined();
    await stopped;
    await expectNothingListens(app);
  });

  it('ends a stream that outlives the grace period with the protocol’s error event, and its upstream’s request', async () => {
    await using place = await startRunningApp(SHORT_GRACE);
    openai.reply(answer.endlessStream({ everyMs: 10 }));
    const stream = await place.stream();
    await place.app.stop();
    expect(findStreamError(await stream.events)).toMatchObject({ code: 'draining' });
    await openai.closed(0);
  });

  it('answers a request that still waits for its upstream after the grace period as draining', async () => {
    await using place = await startRunningApp(SHORT_GRACE);
    openai.reply(fault.silent());
    const waiting = place.chat();
    await openai.received(1);
    await place.app.stop();
    const response = await waiting;
    expect([response.status, await response.json()]).toMatchObject([503, { error: { code: 'draining' } }]);
  });

  it('does not wait for a client that sends its body for ever, and answers it', async () => {
    await using place = await startRunningApp(SHORT_GRACE);
    const { app, session } = place;
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
    // It was admitted before this one, and so waits for its body by now.
    await (await place.chat()).text();
    const ended = once(socket, 'close');
    await app.stop();
    await ended;
    expect(text()).toMatch(/HTTP\/1\.1 503 [\s\S]*"code":"draining"/);
  });

  it('does not wait for a stranger’s request that is only half there', async () => {
    await using place = await startRunningApp(LONG_GRACE);
    const { socket, text } = await openConnection(place.app);
    socket.write(
      `POST /auth/backchannel-logout HTTP/1.1\r\nHost: ${new URL(place.app.url).host}\r\n` +
        'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n' +
        'Expect: 100-continue\r\n\r\nlogout_token=',
    );
    await once(socket, 'data');
    const ended = once(socket, 'close');
    await place.app.stop();
    await ended;
    // Cut off, that is: the form's own limit would have answered.
    expect(text()).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  });

  it('writes out an answer to a client that is slow to take it', async () => {
    await using place = await startRunningApp(LONG_GRACE);
    const { app, session } = place;
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

  it('is gone at once when nothing is under way, though a browser holds a connection that it has not used', async () => {
    await using place = await startRunningApp(LONG_GRACE);
    const { socket } = await openConnection(place.app);
    const ended = once(socket, 'close');
    await place.app.stop();
    await ended;
    await expectNothingListens(place.app);
  });
});

describe('a stranger who sends a request in part', () => {
  it('is cut off after 60 s, and after 30 s without a whole head', async () => {
    await using place = await startRunningApp(SHORT_GRACE);
    const servers: Server[] = [];
    // Where Node tells of requests; nobody wants to wait for a minute here.
    const note = (message: unknown) => servers.push((message as { server: Server }).server);
    subscribe('http.server.request.start', note);
    await place.app.call('/livez');
    unsubscribe('http.server.request.start', note);
    expect(servers.at(-1)).toMatchObject({ requestTimeout: 60_000, headersTimeout: 30_000 });
  });

  it('is given up after 5 s where Keycloak posts its logout tokens', async () => {
    await using place = await startRunningApp(SHORT_GRACE);
    const { socket, text } = await openConnection(place.app);
    const ended = once(socket, 'close');
    socket.write(
      `POST /auth/backchannel-logout HTTP/1.1\r\nHost: ${new URL(place.app.url).host}\r\n` +
        'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nlogout_token=',
    );
    await ended;
    // By the form's own limit: that of the server (60 s) answers 408.
    expect(text()).toMatch(/^HTTP\/1\.1 400 [\s\S]*connection: close[\s\S]*"code":"validation_failed"/i);
  });
});
