import { once } from 'node:events';
import { ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, it, jest } from '@jest/globals';
import express from 'express';
import { z } from 'zod';
import { createErrorHandler } from '../../src/http/errors.ts';
import type { Principal } from '../../src/http/principal.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { jsonRoute, mountRoutes, type Route } from '../../src/http/route.ts';
import { createLog } from '../../src/lib/log.ts';
import { createRunExit, type NumberedEvent } from '../../src/runs/events.ts';
import { runRoutes, type RunRouteDeps } from '../../src/runs/routes.ts';

/** Three of them exceed the memory of a user, and the kernel's buffers do not take one. */
const LARGE = 'x'.repeat(30 * 1024 * 1024);
const RUN_PATH = '/api/v1/execution-servers/default/run';

const jsonRoutes = [
  jsonRoute({
    method: 'post',
    path: '/json',
    access: 'session',
    response: z.string(),
    handle: () => LARGE,
  }),
];

async function* endAtOnce(): AsyncGenerator<NumberedEvent, void> {
  yield await Promise.resolve({ seq: 1, event: createRunExit('exited', LARGE) });
}

/** The routes of runs, with a run that has ended. */
const resultRoutes = runRoutes({
  runs: { submit: () => Promise.resolve({ id: 'run_1' }), subscribeKept: endAtOnce },
  activeWork: { register: () => () => undefined },
  // As for a request without an `Idempotency-Key`.
  idempotency: {
    createOnce: (_request: unknown, creation: { create: (id: string) => unknown }) =>
      creation.create('run_1'),
  },
} as unknown as RunRouteDeps);

const closers: (() => void)[] = [];
afterEach(() => {
  jest.restoreAllMocks();
  for (const close of closers.splice(0)) close();
});

/** Serves the routes to the user whom the header `x-user` names. */
async function serve(routes: readonly Route[], path: string) {
  const app = express();
  app.use(createRequestContext(createLog('silent'), () => undefined));
  mountRoutes(app, routes, {
    authenticate: ({ headers }) =>
      Promise.resolve({
        user: { id: String(headers['x-user']), username: '', email: null, name: null, tier: 'starter' },
        ...{
          credential: 'session',
          scopes: new Set(),
          token: null,
          sessionId: null,
          keycloakSessionId: null,
        },
      } satisfies Principal),
    refuseCrossSite: () => undefined,
    auditTierRefusal: () => Promise.resolve(),
  });
  app.use(createErrorHandler([]));
  const server = app.listen(0, '127.0.0.1');
  closers.push(() => server.close());
  await once(server, 'listening');

  /** Sends a request, and reads no more than the beginning of its response. */
  async function begin(user: string): Promise<{ status: number; client: Socket; closed: Promise<unknown> }> {
    const connected = once(server, 'connection') as Promise<[Socket]>;
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1');
    client.on('error', () => undefined);
    closers.push(() => client.destroy());
    const [socket] = await connected;
    const closed = new Promise((resolve) => socket.once('close', resolve));
    const body = '{"command":"true"}';
    client.write(
      `POST ${path} HTTP/1.1\r\nhost: x\r\nx-user: ${user}\r\naccept: application/json\r\n` +
        `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    const [first] = (await once(client, 'data')) as [Buffer];
    client.pause();
    return { status: Number(first.toString('latin1', 9, 12)), client, closed };
  }
  return { begin };
}

describe.each([
  ['a JSON route', jsonRoutes, '/json'],
  ['a run', resultRoutes, RUN_PATH],
])('the response of %s that its client does not read', (_name, routes, path) => {
  it('counts for the memory of its user until it is closed', async () => {
    const { begin } = await serve(routes, path);
    const unread = [await begin('a'), await begin('a')];
    expect(unread.map(({ status }) => status)).toEqual([200, 200]);
    expect((await begin('a')).status).toBe(429);
    expect((await begin('b')).status).toBe(200);
    unread[0]?.client.destroy();
    await unread[0]?.closed;
    expect((await begin('a')).status).toBe(200);
  });

  it('is closed after a minute', async () => {
    const limits: number[] = [];
    jest.spyOn(ServerResponse.prototype, 'setTimeout').mockImplementation(function (
      this: ServerResponse,
      ms,
      callback,
    ) {
      limits.push(ms);
      this.socket?.setTimeout(100);
      return callback === undefined ? this : this.once('timeout', callback);
    });
    const { begin } = await serve(routes, path);
    const { closed } = await begin('a');
    await closed;
    expect(limits).toEqual([60_000]);
  });
});
