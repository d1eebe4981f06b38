import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, it } from '@jest/globals';
import express from 'express';
import { z } from 'zod';
import { createErrorHandler } from '../../src/http/errors.ts';
import type { Principal } from '../../src/http/principal.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { readJsonBody } from '../../src/http/json-body.ts';
import { jsonRoute, mountRoutes, rawRoute, type Route } from '../../src/http/route.ts';
import { unauthenticated } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';

const LIMITS = { objectMembers: 10, members: 10, elements: 10 };

const ROUTES: [kind: string, route: Route][] = [
  [
    'that parses its body',
    jsonRoute({
      ...{ method: 'post', path: '/', access: 'session', tier: 'starter' },
      body: z.object({}),
      response: z.object({}),
      handle: () => ({}),
    }),
  ],
  [
    'that reads its body itself',
    rawRoute({
      ...{ method: 'post', path: '/', access: 'session', tier: 'starter' },
      async handle(call, received, response) {
        await readJsonBody(received, { maxBytes: 100, limits: LIMITS, reservation: call.bodyReservation });
        await call.reauthorize();
        response.json({});
      },
    }),
  ],
];

const signedIn: Principal = {
  user: { id: 'id', username: 'name', email: null, name: null, tier: 'starter' },
  ...{ credential: 'session', scopes: new Set(), sessionId: 'session', keycloakSessionId: null },
  token: null,
};

let server: Server | undefined;
afterEach(() => {
  server?.close();
});

/** @param checks the result of each check of the request; undefined for a credential that has ended. */
async function listen(route: Route, checks: (Principal | undefined)[]): Promise<() => number> {
  let count = 0;
  const app = express();
  app.use(createRequestContext(createLog('silent'), () => undefined));
  mountRoutes(app, [route], {
    authenticate() {
      const principal = checks[count];
      count += 1;
      return principal === undefined ? Promise.reject(unauthenticated()) : Promise.resolve(principal);
    },
    refuseCrossSite: () => undefined,
    auditTierRefusal: () => Promise.resolve(),
  });
  app.use(createErrorHandler([]));
  server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return () => count;
}

/** Sends a body whose second half follows after a time, counted from the check of the request. */
async function upload(pauseMs: number): Promise<number> {
  const { port } = server?.address() as AddressInfo;
  const sent = request({
    ...{ port, host: '127.0.0.1', method: 'POST' },
    headers: { 'content-type': 'application/json', 'content-length': 2, expect: '100-continue' },
  });
  const answered = once(sent, 'response') as Promise<[IncomingMessage]>;
  sent.flushHeaders();
  await once(sent, 'continue');
  sent.write('{');
  if (pauseMs > 0) await delay(pauseMs);
  sent.end('}');
  const [response] = await answered;
  response.resume();
  return response.statusCode ?? 0;
}

describe.each(ROUTES)('a route %s', (_kind, route) => {
  it('is authorized once when its body arrives at once', async () => {
    const count = await listen(route, [signedIn]);
    expect([await upload(0), count()]).toEqual([200, 1]);
  });

  it('is authorized a second time when its body took longer than 250 ms', async () => {
    const count = await listen(route, [signedIn, signedIn]);
    expect([await upload(300), count()]).toEqual([200, 2]);
  });

  it.each([
    ['whose credential has ended in the meantime', undefined, 401],
    [
      'whose tier has fallen in the meantime',
      { ...signedIn, user: { ...signedIn.user, tier: 'trial' } },
      403,
    ],
  ] as const)('refuses a slow upload %s', async (_what, later, status) => {
    await listen(route, [signedIn, later]);
    expect(await upload(300)).toBe(status);
  });
});
