import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { networkInterfaces } from 'node:os';
import { connect } from 'node:net';
import { once } from 'node:events';
import { fetch } from 'undici';
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
  it('answer everybody on the public port, in one word', async () => {
    for (const [path, status] of [
      ['/livez', 'alive'],
      ['/readyz', 'ready'],
    ] as const) {
      const response = await app.call(path);
      expect([response.status, await response.json()]).toEqual([200, { status }]);
      expect(response.headers.get('cache-control')).toBe('no-store');
    }
  });

  it('tell operators on the metrics port what works', async () => {
    expect(await (await metrics('/livez')).json()).toEqual({ status: 'alive' });
    const response = await metrics('/readyz');
    expect([response.status, await response.json()]).toEqual([
      200,
      { status: 'ready', database: 'ok', migrations: 'ok', keycloak: 'ok' },
    ]);
  });
});

describe('the metrics', () => {
  it('count requests by declared path and status, and name no user, query or unknown path', async () => {
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

  it('are not on the public port, and nothing else is on theirs', async () => {
    expect((await app.call('/metrics')).status).toBe(404);
    expect((await metrics('/api/v1/me')).status).toBe(404);
    expect((await metrics('/metrics', 'POST')).status).toBe(405);
  });
});

describe('the listeners', () => {
  it('are on loopback alone', async () => {
    const addresses = Object.values(networkInterfaces())
      .flatMap((list) => list ?? [])
      .filter(({ internal, family }) => !internal && family === 'IPv4');
    for (const { address } of addresses)
      for (const port of [app.config.port, app.config.metricsPort])
        await expect(once(connect(port, address), 'connect')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(app.config.host).toMatch(/^(127\.0\.0\.1|localhost)$/);
  });
});
