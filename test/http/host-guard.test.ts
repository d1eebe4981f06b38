import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import express from 'express';
import { once } from 'node:events';
import { createServer, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createErrorHandler } from '../../src/http/errors.ts';
import { createHostGuard, type HostGuardOptions } from '../../src/http/host-guard.ts';
import { createRequestContext } from '../../src/http/request-context.ts';
import { createLog } from '../../src/lib/log.ts';

interface TestServer {
  server: Server;
  port: number;
}

let local: TestServer;
let deployed: TestServer;

async function listen(options: HostGuardOptions): Promise<TestServer> {
  const app = express();
  app.use(createRequestContext(createLog('silent'), () => undefined));
  app.use(createHostGuard(options));
  app.use((_request, response) => void response.json('in'));
  app.use(createErrorHandler([]));
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

/** The status of a request with exactly these Host headers. */
async function requestStatus(target: TestServer, path: string, ...hosts: string[]): Promise<number> {
  const headers = hosts.flatMap((host) => ['Host', host]);
  const sent = request({ host: '127.0.0.1', port: target.port, path, setHost: false, headers, agent: false });
  sent.end();
  const [answer] = (await once(sent, 'response')) as [{ statusCode: number; resume(): void }];
  answer.resume();
  return answer.statusCode;
}

beforeAll(async () => {
  local = await listen({
    mode: 'local',
    publicUrl: 'http://localhost:3000',
    internalUrl: 'http://app:3000',
  });
  deployed = await listen({
    mode: 'deployed',
    publicUrl: 'https://ops.example',
    internalUrl: 'http://app.internal:3000',
  });
});
afterAll(async () => {
  for (const { server } of [local, deployed]) {
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  }
});

describe('the Host header', () => {
  it.each(['localhost:3000', 'LOCALHOST:3000', '127.0.0.1:3000', '127.9.9.9:3000', '[::1]:3000'])(
    'in local mode may be the loopback name %s with the public port',
    async (host) => {
      expect(await requestStatus(local, '/', host)).toBe(200);
    },
  );

  it.each([
    'localhost',
    'localhost:3001',
    'localhost.evil.example:3000',
    'evil.example',
    'evil.example:3000',
    '127.0.0.1.nip.io:3000',
    'localhost:3000@evil.example',
    'localhost:3000/x',
    'app:3000',
    '192.168.1.5:3000',
  ])('in local mode may not be %s', async (host) => {
    expect(await requestStatus(local, '/', host)).toBe(421);
  });

  it('of a deployment must be the public address, with or without the default port', async () => {
    expect(await requestStatus(deployed, '/', 'ops.example')).toBe(200);
    expect(await requestStatus(deployed, '/', 'OPS.example:443')).toBe(200);
    for (const host of [
      'ops.example:80',
      'ops.example:3000',
      `localhost:${String(deployed.port)}`,
      'app.internal:3000',
    ])
      expect(await requestStatus(deployed, '/', host)).toBe(421);
  });

  it('of a probe may also be the local address of the connection', async () => {
    const host = `127.0.0.1:${String(deployed.port)}`;
    expect(await requestStatus(deployed, '/livez', host)).toBe(200);
    expect(await requestStatus(deployed, '/readyz', host)).toBe(200);
    expect(await requestStatus(deployed, '/livez', 'evil.example')).toBe(421);
    expect(await requestStatus(deployed, '/api/v1/me', host)).toBe(421);
  });

  it('of a back-channel logout may also be the internal address, of other paths not', async () => {
    expect(await requestStatus(deployed, '/auth/backchannel-logout', 'app.internal:3000')).toBe(200);
    expect(await requestStatus(deployed, '/auth/backchannel-logout', 'app.internal')).toBe(421);
    expect(await requestStatus(deployed, '/auth/logout', 'app.internal:3000')).toBe(421);
  });

  it('must occur exactly once', async () => {
    expect([400, 421]).toContain(await requestStatus(local, '/', 'localhost:3000', 'evil.example'));
    expect([400, 421]).toContain(await requestStatus(local, '/', 'evil.example', 'localhost:3000'));
  });
});
