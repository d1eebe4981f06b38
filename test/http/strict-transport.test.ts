import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, it } from '@jest/globals';
import { createApp } from '../../src/app.ts';
import type { Context } from '../../src/context.ts';
import { pageRoutes } from '../../src/page/routes.ts';
import type { Principal } from '../../src/http/principal.ts';
import { rawRoute } from '../../src/http/route.ts';
import { unauthenticated } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';

/** Starts the HTTP application with a few routes and without its services. */
async function start(publicUrl: string) {
  const authenticate = (): Promise<Principal> => Promise.reject(unauthenticated());
  const page = pageRoutes({
    buildDirectory: '/nonexistent',
    keycloakUrl: 'https://login.example.com',
    settings: { mode: 'local', version: '1.0.0', realm: 'ops-center', account_url: '' },
  });
  const fail = rawRoute({
    method: 'get',
    path: '/api/fail',
    access: 'public',
    handle: () => {
      throw new Error('an internal error');
    },
  });
  const redirect = rawRoute({
    method: 'get',
    path: '/auth/redirect',
    access: 'public',
    handle: (_call, _request, response) => response.redirect(303, '/'),
  });
  const me = rawRoute({ method: 'get', path: '/api/me', access: 'session', handle: () => undefined });
  const app = createApp({
    config: { publicUrl, trustProxy: 0 },
    log: createLog('silent'),
    metrics: { observe: () => undefined },
    hostGuard: (_request: unknown, _response: unknown, next: () => void) => {
      next();
    },
    guards: { authenticate },
    routes: [...page.routes, fail, redirect, me],
    serveUnknownPath: page.serveUnknownPath,
    isDraining: () => false,
  } as unknown as Context);
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

const ANSWERS = [
  ['/', 503],
  ['/assets/missing.css', 404],
  ['/api/me', 401],
  ['/api/fail', 500],
  ['/auth/redirect', 303],
  ['/api/v1/nothing', 404],
  ['/v1/nothing', 404],
  ['/%E0%A4%A', 404],
] as const;

it.each([
  ['https://ops.example.com', 'max-age=31536000; includeSubDomains'],
  ['http://localhost:3000', null],
])('every answer of %s has the header Strict-Transport-Security: %s', async (publicUrl, expected) => {
  const { server, url } = await start(publicUrl);
  try {
    for (const [path, status] of ANSWERS) {
      const response = await fetch(url + path, { redirect: 'manual' });
      await response.text();
      expect({
        path,
        status: response.status,
        header: response.headers.get('strict-transport-security'),
      }).toEqual({
        path,
        status,
        header: expected,
      });
    }
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
