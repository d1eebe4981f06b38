import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import { buffer, text } from 'node:stream/consumers';
import { describe, expect, it } from '@jest/globals';
import {
  LOOPBACK,
  createSequentialLookup,
  upstreamRequest,
  waitForClose,
  createTestDialer,
  errorWithCode,
  fullBacklog,
  startHttpUpstream,
  startTcpUpstream,
} from '../../support/local-upstreams.ts';

// Only Linux leaves connections unanswered when the accept queue is full.
const onLinux = process.platform === 'linux' ? it : it.skip;

describe('a faulty upstream', () => {
  const GARBAGE = {
    'no HTTP': 'SSH-2.0-OpenSSH_9.9 secret-banner\r\n',
    'headers beyond 16 KiB': `HTTP/1.1 200 OK\r\nx-long: ${'a'.repeat(17 * 1024)}\r\n\r\n`,
    'a broken header': 'HTTP/1.1 200 OK\r\nbad header: \u0000\r\n\r\n',
    'two different lengths': 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab',
    'an upgrade': 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n',
  };
  it.each(Object.entries(GARBAGE))(
    'is unreachable when it responds with %s, which the error does not quote',
    async (_name, bytes) => {
      const upstream = await startTcpUpstream((socket) => socket.once('data', () => socket.write(bytes)));
      await expect(createTestDialer().request(upstreamRequest(upstream.origin))).rejects.toEqual(
        expect.objectContaining({
          code: 'upstream_unreachable',
          detail: expect.not.stringContaining('banner'),
        }),
      );
    },
  );

  it('is unreachable when it refuses the connection', async () => {
    const port = await freePort();
    await expect(createTestDialer().request(upstreamRequest(`http://${LOOPBACK}:${port}`))).rejects.toEqual(
      expect.objectContaining({
        code: 'upstream_unreachable',
        detail: expect.not.stringContaining(LOOPBACK),
      }),
    );
  });

  it.each([
    ['the resolver fails', true, () => Promise.reject(new Error('down')), 'upstream_unreachable'],
    ['the resolver fails', false, () => Promise.reject(new Error('down')), 'upstream_unreachable'],
    ['its name has no address', true, () => Promise.resolve([]), 'endpoint_forbidden'],
    ['its name has no address', false, () => Promise.resolve([]), 'upstream_unreachable'],
  ] as const)('fails when %s (guarded: %s)', async (_name, isGuarded, lookup, code) => {
    const request = upstreamRequest('http://host.example', { isGuarded });
    await expect(createTestDialer({ lookup }).request(request)).rejects.toEqual(errorWithCode(code));
  });

  it('is dialled at its next address when one refuses the connection', async () => {
    const upstream = await startHttpUpstream();
    // No process listens on that port of 127.0.0.2.
    const { lookup } = createSequentialLookup(['127.0.0.2', LOOPBACK]);
    const response = await createTestDialer({ lookup }).request(
      upstreamRequest(`http://host.example:${upstream.port}`),
    );
    expect(await text(response.body)).toBe('ok');
  });

  onLinux(
    'is dialled at its next address when one is silent; each address gets a share of the time',
    async () => {
      const port = await fullBacklog('127.0.0.2');
      const upstream = await startHttpUpstream(undefined, { port });
      const { lookup } = createSequentialLookup(['127.0.0.2', LOOPBACK]);
      const longTimeout = createTestDialer({ lookup, connectTimeoutMs: 1_000 });
      const response = await longTimeout.request(upstreamRequest(`http://host.example:${port}`));
      expect(await text(response.body)).toBe('ok');
      expect(upstream.requests).toHaveLength(1);
    },
  );

  onLinux('times out when TCP does not connect', async () => {
    const port = await fullBacklog(LOOPBACK);
    const request = upstreamRequest(`http://${LOOPBACK}:${port}`);
    await expect(createTestDialer({ connectTimeoutMs: 30 }).request(request)).rejects.toEqual(
      errorWithCode('upstream_timeout'),
    );
  });

  it.each(['at once', 'after the request'])(
    'is unreachable, after one attempt, when it closes the connection %s',
    async (when) => {
      const upstream = await startTcpUpstream((socket) => {
        if (when === 'at once') socket.destroy();
        else socket.once('data', () => socket.resetAndDestroy());
      });
      await expect(
        createTestDialer().request(upstreamRequest(upstream.origin, { method: 'POST', body: 'x' })),
      ).rejects.toEqual(errorWithCode('upstream_unreachable'));
      expect(upstream.sockets).toHaveLength(1);
    },
  );

  it('times out when its name does not resolve in time', async () => {
    const slow = createTestDialer({ connectTimeoutMs: 30, lookup: () => new Promise(() => undefined) });
    await expect(slow.request(upstreamRequest('http://host.example'))).rejects.toEqual(
      errorWithCode('upstream_timeout'),
    );
  });

  it('times out when the TLS handshake stalls, and closes the socket', async () => {
    const upstream = await startTcpUpstream((socket) => socket.resume());
    const failed = expect(
      createTestDialer({ connectTimeoutMs: 30 }).request(
        upstreamRequest(`https://${LOOPBACK}:${upstream.port}`),
      ),
    ).rejects.toEqual(errorWithCode('upstream_timeout'));
    await failed;
    await waitForClose(upstream.sockets[0]);
  });

  it('times out when it does not respond, also after interim responses, and closes the socket', async () => {
    for (const interim of [false, true]) {
      const upstream = await startHttpUpstream((_request, response) => {
        if (interim) response.writeProcessing();
      });
      const request = upstreamRequest(upstream.origin, { firstByteTimeoutMs: 30 });
      await expect(createTestDialer().request(request)).rejects.toEqual(errorWithCode('upstream_timeout'));
      await waitForClose(upstream.sockets[0]);
    }
  });

  it('fails the body with a timeout when the response stalls', async () => {
    const upstream = await startHttpUpstream((_request, response) => response.write('part'));
    const response = await createTestDialer().request(
      upstreamRequest(upstream.origin, { idleTimeoutMs: 30 }),
    );
    await expect(text(response.body)).rejects.toEqual(errorWithCode('upstream_timeout'));
    await waitForClose(upstream.sockets[0]);
  });

  it('does not time out while chunks arrive', async () => {
    const upstream = await startHttpUpstream((_request, response) => {
      let count = 0;
      const timer = setInterval(() => {
        response.write('.');
        if (++count < 25) return;
        clearInterval(timer);
        response.end();
      }, 20);
    });
    const response = await createTestDialer().request(
      upstreamRequest(upstream.origin, { idleTimeoutMs: 400 }),
    );
    expect(await text(response.body)).toBe('.'.repeat(25));
  });

  const BROKEN = {
    'a reset': (response: ServerResponse) => response.socket?.resetAndDestroy(),
    'an early end of a chunked body': (response: ServerResponse) => response.socket?.destroy(),
  };
  it.each(Object.entries(BROKEN))(
    'passes the received chunks and then an error to the reader, on %s',
    async (_name, hangUp) => {
      const upstream = await startHttpUpstream((request, response) => {
        response.write('part');
        request.socket.once('drained' as never, () => hangUp(response));
      });
      const { body } = await createTestDialer().request(upstreamRequest(upstream.origin));
      const pieces: string[] = [];
      await expect(
        (async () => {
          for await (const piece of body) {
            pieces.push(String(piece));
            upstream.sockets[0]?.emit('drained');
          }
        })(),
      ).rejects.toEqual(errorWithCode('upstream_unreachable'));
      expect(pieces).toEqual(['part']);
    },
  );

  it('fails the body when it is shorter than its content-length', async () => {
    const upstream = await startHttpUpstream((_request, response) => {
      response.writeHead(200, { 'content-length': '10' });
      response.write('half', () => response.socket?.end());
    });
    const { body } = await createTestDialer().request(upstreamRequest(upstream.origin));
    await expect(text(body)).rejects.toEqual(errorWithCode('upstream_unreachable'));
  });

  it('does not end the process when a body fails that is not read', async () => {
    const upstream = await startHttpUpstream((_request, response) => response.write('part'));
    const { body } = await createTestDialer().request(
      upstreamRequest(upstream.origin, { idleTimeoutMs: 10 }),
    );
    await new Promise((resolve) => body.once('close', resolve));
    expect(body.errored).toEqual(errorWithCode('upstream_timeout'));
  });
});

describe('a slow reader', () => {
  it('applies back pressure for longer than the idle timeout and loses nothing', async () => {
    const piece = Buffer.alloc(64 * 1024, 'x');
    const total = 512 * piece.length;
    let written = 0;
    const upstream = await startHttpUpstream((request, response) => {
      if (request.url === '/silent') return;
      const write = () => {
        while (written < total) {
          written += piece.length;
          if (!response.write(piece)) return response.once('drain', write);
        }
        return response.end();
      };
      write();
    });
    const slow = createTestDialer();
    const { body } = await slow.request(upstreamRequest(upstream.origin, { idleTimeoutMs: 2_000 }));
    // Nothing is read until another request has timed out.
    const silent = upstreamRequest(`${upstream.origin}/silent`, { firstByteTimeoutMs: 2_500 });
    await expect(slow.request(silent)).rejects.toEqual(errorWithCode('upstream_timeout'));
    expect(written).toBeLessThan(total);
    expect(body.readableLength).toBeLessThan(512 * 1024);
    expect((await buffer(body)).length).toBe(total);
  });

  it.each(['before the headers', 'in the body'])(
    'receives what has arrived while the process was busy for longer than the timeout %s',
    async (phase) => {
      const begun = Promise.withResolvers<ServerResponse>();
      const upstream = await startHttpUpstream((_request, response) => {
        if (phase === 'in the body') response.write('first ');
        begun.resolve(response);
      });
      const pending = createTestDialer().request(
        upstreamRequest(upstream.origin, { firstByteTimeoutMs: 100, idleTimeoutMs: 100 }),
      );
      const response = await begun.promise;
      if (phase === 'in the body') await pending;
      response.write('second');
      const busyUntilMs = performance.now() + 200;
      while (performance.now() < busyUntilMs);
      response.end();
      expect((await buffer((await pending).body)).toString()).toMatch(/^(first )?second$/);
    },
  );

  it('times out after the idle timeout when it has read everything', async () => {
    const upstream = await startHttpUpstream((request, response) => {
      // The last chunk fills the buffer: back pressure applies, and no more data follows.
      if (request.url !== '/silent') response.write(Buffer.alloc(64 * 1024));
    });
    const slow = createTestDialer();
    const { body } = await slow.request(upstreamRequest(upstream.origin, { idleTimeoutMs: 30 }));
    const silent = upstreamRequest(`${upstream.origin}/silent`, { firstByteTimeoutMs: 100 });
    await expect(slow.request(silent)).rejects.toEqual(errorWithCode('upstream_timeout'));
    expect(body.readableLength).toBe(64 * 1024);
    await expect(buffer(body)).rejects.toEqual(errorWithCode('upstream_timeout'));
  });
});

/** A port on which no process listens. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, LOOPBACK);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
