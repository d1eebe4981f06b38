import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { networkInterfaces } from 'node:os';
import { connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { request } from 'node:http';
import { fetch } from 'undici';
import { createMetrics } from '../../src/health/metrics.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { createUser } from '../support/stack.ts';
import { until } from '../support/until.ts';

let app: TestApp;
beforeAll(async () => {
  app = await startApp();
});
afterAll(() => app.stop());

const metrics = (path: string, method = 'GET') =>
  fetch(`http://127.0.0.1:${app.config.metricsPort}${path}`, { method });

describe('the probes', () => {
  it('are public on the public port and return only a status', async () => {
    for (const [path, status] of [
      ['/livez', 'alive'],
      ['/readyz', 'ready'],
    ] as const) {
      const response = await app.call(path);
      expect([response.status, await response.json()]).toEqual([200, { status }]);
      expect(response.headers.get('cache-control')).toBe('no-store');
    }
  });

  it('list the dependencies on the metrics port', async () => {
    expect(await (await metrics('/livez')).json()).toEqual({ status: 'alive' });
    const response = await metrics('/readyz');
    expect([response.status, await response.json()]).toEqual([
      200,
      { status: 'ready', database: 'ok', migrations: 'ok', keycloak: 'ok' },
    ]);
  });
});

describe('an idle connection of a client', () => {
  // Node announces in this header how long it keeps an idle connection.
  const announced = async (running: TestApp) => {
    const { metricsPort } = running.config;
    const responses = [await running.call('/livez'), await fetch(`http://127.0.0.1:${metricsPort}/livez`)];
    return responses.map((response) => response.headers.get('keep-alive'));
  };

  it('stays open longer than the 60 s of balancers, on both ports', async () => {
    expect(await announced(app)).toEqual(['timeout=75', 'timeout=75']);
  });

  it('stays open for KEEP_ALIVE_TIMEOUT_MS, then is closed', async () => {
    await using running = await startApp({ env: { KEEP_ALIVE_TIMEOUT_MS: '2000' } });
    expect(await announced(running)).toEqual(['timeout=2', 'timeout=2']);
    const socket = connect(running.config.port, '127.0.0.1');
    socket.write(`GET /livez HTTP/1.1\r\nHost: localhost:${running.config.port}\r\n\r\n`);
    socket.resume();
    await once(socket, 'close');
  });
});

describe('the metrics', () => {
  it('count requests by declared path and status, without users, queries or unknown paths', async () => {
    const user = await createUser();
    const session = await app.signIn(user);
    await app.call('/api/v1/me?secret=query', { session });
    await app.call(`/api/v1/byok/keys/${user.id}`, { session, method: 'DELETE' });
    await app.call(`/nothing/${user.id}`);
    const read = async () => (await metrics('/metrics')).text();
    const text = await until(read, (now) => now.includes('route="unmatched"'));
    expect(text).toContain(
      'ops_center_http_request_duration_seconds_count{method="GET",route="/api/v1/me",status="200"} 1',
    );
    expect(text).toContain('method="DELETE",route="/api/v1/byok/keys/:provider",status="404"} 1');
    for (const secret of [user.id, user.username, session, 'secret=query', '/nothing'])
      expect(text).not.toContain(secret);
  });

  it('are served only on the metrics port, which serves nothing else', async () => {
    expect((await app.call('/metrics')).status).toBe(404);
    expect((await metrics('/api/v1/me')).status).toBe(404);
    expect((await metrics('/metrics', 'POST')).status).toBe(405);
  });
});

describe('the Host header on the metrics port', () => {
  /** The status of a request with exactly these Host headers. */
  async function ask(path: string, ...hosts: string[]): Promise<number> {
    const headers = hosts.flatMap((host) => ['Host', host]);
    const port = app.config.metricsPort;
    const sent = request({ host: '127.0.0.1', port, path, setHost: false, headers, agent: false });
    sent.end();
    const [answer] = (await once(sent, 'response')) as [{ statusCode: number; resume(): void }];
    answer.resume();
    return answer.statusCode;
  }

  it('must be the local address or, in local mode, a loopback name, with its port', async () => {
    const { metricsPort, port } = app.config;
    for (const name of ['127.0.0.1', 'localhost', 'LOCALHOST', '[::1]'])
      expect(await ask('/metrics', `${name}:${metricsPort}`)).toBe(200);
    for (const path of ['/metrics', '/livez', '/readyz']) {
      for (const host of [`evil.example:${metricsPort}`, `127.0.0.1:${port}`, 'localhost', '192.168.1.5'])
        expect(await ask(path, host)).toBe(421);
    }
    expect([400, 421]).toContain(await ask('/metrics', `localhost:${metricsPort}`, 'evil.example'));
  });

  it('of a deployment may only be the local address or the configured host', async () => {
    const server = createMetrics().createOperatorServer(() => Promise.resolve({ ready: true, details: {} }), {
      mode: 'deployed',
      host: 'Metrics.internal',
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const statusOf = async (host: string) => {
      const sent = request({ host: '127.0.0.1', port, path: '/livez', headers: { host }, agent: false });
      sent.end();
      const [answer] = (await once(sent, 'response')) as [{ statusCode: number; resume(): void }];
      answer.resume();
      return answer.statusCode;
    };
    expect(await statusOf(`127.0.0.1:${port}`)).toBe(200);
    expect(await statusOf(`metrics.internal:${port}`)).toBe(200);
    expect(await statusOf(`localhost:${port}`)).toBe(421);
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  });
});

describe('the listeners', () => {
  it('listen on loopback only', async () => {
    const addresses = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv4');
    for (const { address } of addresses)
      for (const port of [app.config.port, app.config.metricsPort])
        await expect(once(connect(port, address), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(app.config.host).toMatch(/^(127\.0\.0\.1|localhost)$/);
  });
});
