import { spawn } from 'node:child_process';
import { buffer, text } from 'node:stream/consumers';
import { getCACertificates, setDefaultCACertificates, type TLSSocket } from 'node:tls';
import { gzipSync } from 'node:zlib';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { certificate } from '../../support/certificate.ts';
import {
  LOOPBACK,
  PUBLIC,
  createSequentialLookup,
  upstreamRequest,
  waitForClose,
  createTestDialer,
  errorWithCode,
  startHttpUpstream,
  startHttpsUpstream,
  startTcpUpstream,
  until,
} from '../../support/local-upstreams.ts';

/** Requests each address of its arguments once; prints statuses and error codes. */
const REQUEST_PROCESS = path.join(import.meta.dirname, 'request-process.ts');

describe('a request', () => {
  it('sends exactly the given request and returns the response', async () => {
    const upstream = await startHttpUpstream((request, response) => {
      request.pipe(response.writeHead(418, { 'x-one': 'a', 'set-cookie': ['b=1', 'c=2'] }));
    });
    const response = await createTestDialer().request(
      upstreamRequest(`${upstream.origin}/v1/chat?x=1`, {
        method: 'POST',
        headers: { 'x-sent': 'yes' },
        body: '{"a":1}',
      }),
    );
    expect(response.status).toBe(418);
    expect(response.headers).toMatchObject({ 'x-one': 'a', 'set-cookie': ['b=1', 'c=2'] });
    expect(await text(response.body)).toBe('{"a":1}');
    expect(upstream.requests[0]).toMatchObject({ method: 'POST', url: '/v1/chat?x=1', httpVersion: '1.1' });
    expect(upstream.requests[0]?.headers).toEqual({
      host: `${LOOPBACK}:${upstream.port}`,
      connection: 'keep-alive',
      'content-length': '7',
      'x-sent': 'yes',
    });
  });

  it('does not decompress the response', async () => {
    const packed = gzipSync('hello');
    const upstream = await startHttpUpstream((_request, response) =>
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(packed),
    );
    const response = await createTestDialer().request(upstreamRequest(upstream.origin));
    expect(response.headers['content-encoding']).toBe('gzip');
    expect(await buffer(response.body)).toEqual(packed);
  });

  it('waits for the final response after interim ones', async () => {
    const upstream = await startHttpUpstream((_request, response) => {
      response.writeProcessing();
      response.writeEarlyHints({ link: '</a>; rel=preload' });
      response.end('real');
    });
    const response = await createTestDialer().request(upstreamRequest(upstream.origin));
    expect(response.status).toBe(200);
    expect(response.headers['link']).toBeUndefined();
    expect(await text(response.body)).toBe('real');
  });

  it('ignores the environment: its proxies and the switch that disables TLS checks', async () => {
    const [proxy, upstream, secure] = [
      await startHttpUpstream(),
      await startHttpUpstream(),
      await startHttpsUpstream(),
    ];
    const names = ['http_proxy', 'HTTP_PROXY', 'https_proxy', 'HTTPS_PROXY', 'ALL_PROXY'];
    const proxies = Object.fromEntries(names.map((name) => [name, proxy.origin] as const));
    // In a separate process: in tests process.env is a copy, which Node does not read.
    const child = spawn(process.execPath, [REQUEST_PROCESS, upstream.origin, secure.origin], {
      env: { ...proxies, NODE_USE_ENV_PROXY: '1', NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    expect(JSON.parse(await text(child.stdout))).toEqual([200, 'upstream_unreachable']);
    expect(proxy.sockets).toHaveLength(0);
  });

  it('refuses another scheme and credentials in the address', async () => {
    for (const url of ['ftp://host/', 'http://user@127.0.0.1:1/', 'http://:pw@127.0.0.1:1/']) {
      for (const guarded of [true, false]) {
        await expect(
          createTestDialer().request(upstreamRequest(url, { isGuarded: guarded })),
        ).rejects.toEqual(errorWithCode('endpoint_forbidden'));
      }
    }
  });
});

describe("users' addresses", () => {
  it('are checked for each new connection, also literals', async () => {
    const upstream = await startHttpUpstream();
    const deployed = createTestDialer({ mode: 'deployed' });
    await expect(deployed.request(upstreamRequest(upstream.origin))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    for (const host of ['2130706433', '0x7f.1', '[::ffff:127.0.0.1]', 'localhost', '[::1]', '0']) {
      await expect(deployed.request(upstreamRequest(`http://${host}:${upstream.port}`))).rejects.toEqual(
        errorWithCode('endpoint_forbidden'),
      );
    }
    expect(upstream.sockets).toHaveLength(0);
  });

  it('are refused when one address of a name is forbidden; nothing is dialled', async () => {
    const upstream = await startHttpUpstream();
    for (const bad of [
      '169.254.169.254',
      '0.0.0.0',
      '::ffff:169.254.169.254',
      '64:ff9b::a9fe:a9fe',
      'fe80::1',
    ]) {
      const { lookup } = createSequentialLookup([LOOPBACK, bad]);
      const request = upstreamRequest(`http://host.example:${upstream.port}`);
      await expect(createTestDialer({ lookup }).request(request)).rejects.toEqual(
        errorWithCode('endpoint_forbidden'),
      );
    }
    expect(upstream.sockets).toHaveLength(0);
  });

  it.each([
    ['a private address', { mode: 'deployed' as const }],
    ['a denied address', { deny: ['127.0.0.0/8'] }],
    ['a port of our own', { mode: 'local' as const }],
  ])('are checked again when dialled: the name resolves to %s after the check', async (name, options) => {
    const upstream = await startHttpUpstream();
    const { asked, lookup } = createSequentialLookup([PUBLIC], [LOOPBACK]);
    const forbidden = () => (name === 'a port of our own' ? [{ host: LOOPBACK, port: upstream.port }] : []);
    const changing = createTestDialer({ ...options, forbidden, lookup });
    const url = await changing.checkEndpoint(`http://host.example:${upstream.port}/v1`);
    await expect(changing.request(upstreamRequest(url.href))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    expect(asked).toEqual(['host.example', 'host.example']);
    expect(upstream.sockets).toHaveLength(0);
  });

  it('are checked again when a connection is replaced', async () => {
    const upstream = await startHttpUpstream((_request, response) =>
      response.writeHead(200, { connection: 'close' }).end(),
    );
    const { lookup } = createSequentialLookup([LOOPBACK], ['169.254.169.254']);
    const changing = createTestDialer({ lookup });
    await text((await changing.request(upstreamRequest(`http://host.example:${upstream.port}`))).body);
    await expect(changing.request(upstreamRequest(`http://host.example:${upstream.port}`))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    expect(upstream.sockets).toHaveLength(1);
  });

  it('are dialled exactly as checked: one lookup per connection, with the name in the Host header', async () => {
    const upstream = await startHttpUpstream();
    const { asked, lookup } = createSequentialLookup([LOOPBACK], ['169.254.169.254']);
    const response = await createTestDialer({ lookup }).request(
      upstreamRequest(`http://Host.Example:${upstream.port}/`),
    );
    expect(await text(response.body)).toBe('ok');
    expect(asked).toEqual(['host.example']);
    expect(upstream.requests[0]?.headers.host).toBe(`host.example:${upstream.port}`);
  });

  it('are not redirected: the response is returned unchanged', async () => {
    const target = await startHttpUpstream();
    for (const status of [301, 302, 303, 307, 308]) {
      const upstream = await startHttpUpstream((_request, response) =>
        response.writeHead(status, { location: `${target.origin}/secret` }).end(),
      );
      const forbidden = () => [{ host: LOOPBACK, port: target.port }];
      const response = await createTestDialer({ forbidden }).request(upstreamRequest(upstream.origin));
      expect(response.status).toBe(status);
      expect(response.headers['location']).toBe(`${target.origin}/secret`);
    }
    expect(target.sockets).toHaveLength(0);
  });

  it('are limited to the ports that the operator names', async () => {
    const [allowed, other] = [await startHttpUpstream(), await startHttpUpstream()];
    const limited = createTestDialer({ mode: 'deployed', allow: [`${LOOPBACK}:${allowed.port}`] });
    expect((await limited.request(upstreamRequest(allowed.origin))).status).toBe(200);
    await expect(limited.request(upstreamRequest(other.origin))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    const denied = createTestDialer({ deny: [`${LOOPBACK}:${allowed.port}`] });
    await expect(denied.request(upstreamRequest(allowed.origin))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
    expect((await denied.request(upstreamRequest(other.origin))).status).toBe(200);
    expect(other.sockets).toHaveLength(1);
  });

  it('never share a connection with addresses of the operator, to which the policy does not apply', async () => {
    const upstream = await startHttpUpstream();
    const forbidden = () => [{ host: LOOPBACK, port: upstream.port }];
    const shared = createTestDialer({ mode: 'deployed', deny: ['127.0.0.0/8'], forbidden });
    const operators = await shared.request(upstreamRequest(upstream.origin, { isGuarded: false }));
    expect(await text(operators.body)).toBe('ok');
    expect(operators.isFromPublicAddress).toBe(true);
    await expect(shared.request(upstreamRequest(upstream.origin))).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
  });

  it('report whether the response came from a public address', async () => {
    const upstream = await startHttpUpstream();
    expect((await createTestDialer().request(upstreamRequest(upstream.origin))).isFromPublicAddress).toBe(
      false,
    );
  });
});

describe('checkEndpoint', () => {
  it('returns the canonical address of an allowed endpoint', async () => {
    const { lookup } = createSequentialLookup([PUBLIC]);
    expect((await createTestDialer({ lookup }).checkEndpoint('HTTPS://Host.Example.:443/v1/')).href).toBe(
      'https://host.example/v1',
    );
  });

  it('throws endpoint_forbidden for invalid syntax, a forbidden address and a name that is not found', async () => {
    const { lookup } = createSequentialLookup(['10.0.0.1']);
    const deployed = createTestDialer({ mode: 'deployed', lookup });
    for (const endpoint of ['http://user@host', 'https://host.example', 'http://169.254.169.254']) {
      await expect(deployed.checkEndpoint(endpoint)).rejects.toEqual(errorWithCode('endpoint_forbidden'));
    }
    const unknown = createTestDialer({ lookup: () => Promise.reject(new Error('ENOTFOUND')) });
    await expect(unknown.checkEndpoint('https://host.example')).rejects.toEqual(
      errorWithCode('endpoint_forbidden'),
    );
  });

  it('never reveals the resolved address', async () => {
    const { lookup } = createSequentialLookup(['10.11.12.13']);
    const deployed = createTestDialer({ mode: 'deployed', lookup });
    await expect(deployed.checkEndpoint('https://host.example')).rejects.toEqual(
      expect.objectContaining({ detail: expect.not.stringContaining('10.11') }),
    );
  });
});

describe('TLS', () => {
  const before = getCACertificates('default');
  beforeAll(() => {
    setDefaultCACertificates([...before, certificate.cert]);
  });
  afterAll(() => {
    setDefaultCACertificates(before);
  });

  it('uses the name for SNI and the certificate, and dials the checked address', async () => {
    const upstream = await startHttpsUpstream((request, response) =>
      response.end((request.socket as TLSSocket).servername),
    );
    const { lookup } = createSequentialLookup([LOOPBACK]);
    const response = await createTestDialer({ lookup }).request(
      upstreamRequest(`https://upstream.test:${upstream.port}`),
    );
    expect(await text(response.body)).toBe('upstream.test');
  });

  it('compares a literal address with the certificate and sends no name', async () => {
    const upstream = await startHttpsUpstream((request, response) =>
      response.end(String((request.socket as TLSSocket).servername)),
    );
    expect(await text((await createTestDialer().request(upstreamRequest(upstream.origin))).body)).toBe(
      'false',
    );
  });

  it('refuses a certificate of another name, without quoting it', async () => {
    const upstream = await startHttpsUpstream();
    const { lookup } = createSequentialLookup([LOOPBACK]);
    await expect(
      createTestDialer({ lookup }).request(upstreamRequest(`https://other.test:${upstream.port}`)),
    ).rejects.toEqual(
      expect.objectContaining({
        code: 'upstream_unreachable',
        detail: expect.not.stringContaining('upstream.test'),
      }),
    );
    expect(upstream.requests).toHaveLength(0);
  });

  it('is unreachable when the upstream does not use TLS', async () => {
    const upstream = await startHttpUpstream();
    await expect(
      createTestDialer().request(upstreamRequest(`https://${LOOPBACK}:${upstream.port}`)),
    ).rejects.toEqual(errorWithCode('upstream_unreachable'));
  });
});

describe('connections', () => {
  const readAll = async (from: Dialer, url: string) => text((await from.request(upstreamRequest(url))).body);

  it('are reused, with one request at a time', async () => {
    const upstream = await startHttpUpstream();
    const reusing = createTestDialer();
    for (let count = 0; count < 5; count++) await readAll(reusing, upstream.origin);
    expect(upstream.sockets).toHaveLength(1);
    await Promise.all([readAll(reusing, upstream.origin), readAll(reusing, upstream.origin)]);
    expect(upstream.sockets).toHaveLength(2);
  });

  it('are not reused after an aborted response or `connection: close`', async () => {
    const upstream = await startHttpUpstream((request, response) => {
      if (request.url === '/close') response.writeHead(200, { connection: 'close' }).end();
      else response.write('part');
    });
    const reusing = createTestDialer();
    await readAll(reusing, `${upstream.origin}/close`);
    const cut = await reusing.request(upstreamRequest(`${upstream.origin}/cut`));
    cut.body.destroy();
    await waitForClose(upstream.sockets[1]);
    await readAll(reusing, `${upstream.origin}/close`);
    expect(upstream.sockets).toHaveLength(3);
  });

  it('are closed before the idle timeout that the upstream announces', async () => {
    // The upstream closes after 1 s; ours closes 2 s earlier, which is at once.
    const upstream = await startHttpUpstream(undefined, { keepAliveMs: 1_000 });
    const reusing = createTestDialer();
    await readAll(reusing, upstream.origin);
    await readAll(reusing, upstream.origin);
    expect(upstream.sockets).toHaveLength(2);
  });

  it('cost no request when the upstream closes them while idle', async () => {
    const upstream = await startHttpUpstream();
    const reusing = createTestDialer();
    for (let count = 0; count < 50; count++) {
      await readAll(reusing, upstream.origin);
      // The close arrives while the next request is being sent.
      upstream.sockets.at(-1)?.destroy();
      const response = await reusing.request(upstreamRequest(upstream.origin, { method: 'POST', body: 'x' }));
      expect(await text(response.body)).toBe('ok');
      upstream.sockets.at(-1)?.end();
    }
    expect(upstream.requests).toHaveLength(100);
  });

  it('are closed by close, whether idle, busy or connecting; busy requests fail', async () => {
    const upstream = await startHttpUpstream((request, response) => {
      if (request.url === '/idle') response.end();
      if (request.url === '/streaming') response.write('part');
    });
    const silent = await startTcpUpstream((socket) => socket.resume());
    const closing = createTestDialer();
    const streaming = await closing.request(upstreamRequest(`${upstream.origin}/streaming`));
    const waiting = closing.request(upstreamRequest(`${upstream.origin}/waiting`));
    const connecting = closing.request(upstreamRequest(`https://${LOOPBACK}:${silent.port}`));
    const ended = Promise.all([
      expect(text(streaming.body)).rejects.toEqual(errorWithCode('upstream_unreachable')),
      expect(waiting).rejects.toEqual(errorWithCode('upstream_unreachable')),
      expect(connecting).rejects.toEqual(errorWithCode('upstream_unreachable')),
    ]);
    await readAll(closing, `${upstream.origin}/idle`);
    await until(() => upstream.requests.length === 3 && silent.sockets.length === 1);
    await closing.close();
    await ended;
    await Promise.all([...upstream.sockets, ...silent.sockets].map(waitForClose));
    const timers = countTimers();
    await expect(closing.request(upstreamRequest(upstream.origin))).rejects.toEqual(
      errorWithCode('upstream_unreachable'),
    );
    expect(countTimers()).toBe(timers);
  });
});

function countTimers(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
}
