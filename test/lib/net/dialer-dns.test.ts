import { scrypt } from 'node:crypto';
import { lookup as systemLookup } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import {
  LOOPBACK,
  upstreamRequest,
  createTestDialer,
  errorWithCode,
  startHttpUpstream,
  until,
} from '../../support/local-upstreams.ts';
import { startNameServer } from '../../support/name-server.ts';

const SLOW_LOOKUPS = 50;
const CHECK_LIMIT_MS = 3_000;

let server: Awaited<ReturnType<typeof startNameServer>>;
beforeEach(async () => {
  server = await startNameServer((name, family) => {
    if (name.endsWith('silent.example')) return 'silent';
    if (name !== 'quick.example') return 'absent';
    return family === 4 ? [LOOPBACK] : [];
  });
});
afterEach(async () => {
  jest.useRealTimers();
  await server.close();
});

const local = () => createTestDialer({ nameServers: [server.address] });

describe("users' names that do not resolve", () => {
  it('block neither files, cryptography, other lookups nor other requests, and can be cancelled', async () => {
    const upstream = await startHttpUpstream();
    const from = local();
    const leaving = new AbortController();
    const reason = new Error('the client left');
    let ended = 0;
    const slow = Array.from({ length: SLOW_LOOKUPS }, (_, index) => {
      const request = from.request(
        upstreamRequest(`http://${index}.silent.example:${upstream.port}`, { signal: leaving.signal }),
      );
      request.catch(() => ended++);
      return request;
    });
    await until(() => server.asked.length === 2 * SLOW_LOOKUPS);
    // A lookup by the system would occupy one of four threads, of which lookups may use two.
    expect(process.getActiveResourcesInfo()).not.toContain('GetAddrInfoReqWrap');

    await Promise.all([
      readFile(import.meta.filename),
      promisify(scrypt)('password', 'salt', 32),
      systemLookup('localhost'),
    ]);
    const operators = await from.request(
      upstreamRequest(`http://localhost:${upstream.port}`, { isGuarded: false }),
    );
    expect(await text(operators.body)).toBe('ok');
    const users = await from.request(upstreamRequest(`http://quick.example:${upstream.port}`));
    expect(await text(users.body)).toBe('ok');
    expect(ended).toBe(0);

    leaving.abort(reason);
    await until(() => ended === SLOW_LOOKUPS);
    for (const request of slow) await expect(request).rejects.toBe(reason);
    // When the query for a later name is repeated, theirs would have been repeated too.
    const later = from.request(
      upstreamRequest('http://later.silent.example', { signal: AbortSignal.timeout(5_000) }),
    );
    later.catch(() => undefined);
    await until(() => server.asked.filter((name) => name === 'later.silent.example').length > 2);
    expect(server.asked.filter((name) => /^\d+\.silent\.example$/.test(name))).toHaveLength(2 * SLOW_LOOKUPS);
    expect(upstream.sockets).toHaveLength(2);
  });

  it('fail a request as unreachable when the name server is silent', async () => {
    await expect(local().request(upstreamRequest('http://silent.example'))).rejects.toEqual(
      errorWithCode('upstream_unreachable'),
    );
  });

  it('fail a request with a timeout when the time to connect ends first', async () => {
    const shortTimeout = createTestDialer({ nameServers: [server.address], connectTimeoutMs: 30 });
    await expect(shortTimeout.request(upstreamRequest('http://silent.example'))).rejects.toEqual(
      errorWithCode('upstream_timeout'),
    );
  });

  it('make an endpoint forbidden, whether they do not exist or the name server is silent', async () => {
    for (const name of ['silent.example', 'absent.example']) {
      await expect(local().checkEndpoint(`http://${name}`)).rejects.toEqual(
        errorWithCode('endpoint_forbidden'),
      );
    }
  });

  it('make an endpoint forbidden after 3 s', async () => {
    jest.useFakeTimers();
    const never = createTestDialer({ lookup: () => new Promise(() => undefined) });
    const refused = jest.fn();
    never.checkEndpoint('http://host.example').catch(refused);
    await jest.advanceTimersByTimeAsync(CHECK_LIMIT_MS - 1);
    expect(refused).not.toHaveBeenCalled();
    await jest.advanceTimersByTimeAsync(1);
    expect(refused).toHaveBeenCalledWith(errorWithCode('endpoint_forbidden'));
  });

  it('do not affect an endpoint whose name resolves', async () => {
    expect((await local().checkEndpoint('http://quick.example/v1')).href).toBe('http://quick.example/v1');
  });
});
