import type { Socket } from 'node:net';
import { Duplex, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  createBoundedHttpClient,
  readLines,
  type BoundedHttpClient,
  type BoundedRequest,
} from '../../../src/lib/net/bounded-http.ts';
import { createTlsConnector, type Connector } from '../../../src/lib/net/tls-connector.ts';
import { certificate } from '../../support/certificate.ts';
import {
  LOOPBACK,
  waitForClose,
  createTestDialer,
  errorWithCode,
  startHttpUpstream,
  startHttpsUpstream,
  startTcpUpstream,
  until,
  type Upstream,
} from '../../support/local-upstreams.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const GET: BoundedRequest = { method: 'GET', path: '/x', timeoutMs: 5_000 };
const never = new AbortController().signal;
const OK = 'HTTP/1.1 200 OK\r\n';
const SWITCH = 'HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n';

function createClientOver(connect: Connector, host = 'server.test'): BoundedHttpClient {
  const client = createBoundedHttpClient(connect, { host });
  cleanups.push(() => client.close());
  return client;
}

function createClient(upstream: Upstream): BoundedHttpClient {
  const dials = createTestDialer();
  return createClientOver((signal) => dials.connect(LOOPBACK, upstream.port, signal));
}

function tlsConnector(upstream: Upstream): Connector {
  const tls = { ca: certificate.cert, client: null };
  return createTlsConnector(createTestDialer(), { host: LOOPBACK, port: upstream.port, tls });
}

function createTlsClient(upstream: Upstream, host?: string): BoundedHttpClient {
  return createClientOver(tlsConnector(upstream), host);
}

/** A client of a server that responds to each request with `respond`. */
async function startServer(
  respond: (socket: Socket) => void,
): Promise<BoundedHttpClient & { upstream: Upstream }> {
  const upstream = await startTcpUpstream((socket) => socket.once('data', () => respond(socket)));
  return { ...createClient(upstream), upstream };
}

/** Writes a chunk repeatedly, as long as the other end reads. */
function writeForever(socket: Socket, piece: string): void {
  const write = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', write);
  write();
}

const send = (client: BoundedHttpClient, changes: object = {}) =>
  client.requestText({ ...GET, maxBytes: 1_000, ...changes });

describe('a request to an untrusted server', () => {
  it('is sent as given, and returns the whole response', async () => {
    const bodies: string[] = [];
    const upstream = await startHttpUpstream((asked, response) => {
      void text(asked).then((body) => {
        bodies.push(body);
        response.writeHead(404).end('none');
      });
    });
    const client = createClient(upstream);
    const response = await send(client, { method: 'POST', path: '/a?b=c', body: { d: 'é' } });
    expect(response).toEqual({ status: 404, text: 'none' });
    expect(upstream.requests[0]).toMatchObject({ method: 'POST', url: '/a?b=c' });
    expect(upstream.requests[0]?.headers).toMatchObject({
      host: 'server.test',
      'content-type': 'application/json',
      'content-length': '10',
    });
    expect(bodies).toEqual(['{"d":"é"}']);
  });

  it('fails when the response exceeds the size limit, and closes the connection', async () => {
    const client = await startServer((socket) => {
      socket.write(`${OK}transfer-encoding: chunked\r\n\r\n`);
      writeForever(socket, `400\r\n${'x'.repeat(1024)}\r\n`);
    });
    await expect(send(client)).rejects.toEqual(errorWithCode('upstream_malformed'));
    await waitForClose(client.upstream.sockets[0]);
  });

  for (const [what, piece] of [
    ['headers without end', 'x-header: value\r\n'],
    ['one header without end', 'x'.repeat(1024)],
    ['interim responses without end', 'HTTP/1.1 103 Early Hints\r\n\r\n'],
  ] as const) {
    it(`fails on ${what}`, async () => {
      const client = await startServer((socket) => {
        socket.write(piece.startsWith('HTTP') ? '' : OK);
        writeForever(socket, piece);
      });
      await expect(send(client, { timeoutMs: 1_000 })).rejects.toMatchObject({
        code: expect.stringMatching(/^upstream_(unreachable|timeout)$/),
      });
      await waitForClose(client.upstream.sockets[0]);
    });
  }

  it('fails when the response is not HTTP or incomplete', async () => {
    const garbage = await startServer((socket) => socket.write('SSH-2.0-x\r\n'));
    await expect(send(garbage)).rejects.toEqual(errorWithCode('upstream_unreachable'));
    const cut = await startServer((socket) => socket.end(`${OK}content-length: 10\r\n\r\nhalf`));
    await expect(send(cut)).rejects.toEqual(errorWithCode('upstream_unreachable'));
    const silent = await startServer((socket) => socket.end());
    await expect(send(silent)).rejects.toEqual(errorWithCode('upstream_unreachable'));
  });

  it('fails when the whole response is not received within the time limit', async () => {
    const silent = await startServer(() => undefined);
    await expect(send(silent, { timeoutMs: 200 })).rejects.toEqual(errorWithCode('upstream_timeout'));
    const slow = await startServer((socket) => socket.write(`${OK}content-length: 10\r\n\r\nhalf`));
    await expect(send(slow, { timeoutMs: 200 })).rejects.toEqual(errorWithCode('upstream_timeout'));
    await waitForClose(slow.upstream.sockets[0]);
  });

  it('fails with the reason of its signal', async () => {
    const client = await startServer(() => undefined);
    const stop = new AbortController();
    const response = send(client, { signal: stop.signal });
    await until(() => client.upstream.sockets.length === 1);
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(response).rejects.toBe(reason);
    await waitForClose(client.upstream.sockets[0]);
  });

  it('does not limit the body of a streamed response after its headers', async () => {
    const client = await startServer((socket) => socket.write(`${OK}transfer-encoding: chunked\r\n\r\n`));
    const { status, body } = await client.requestStream({ ...GET, timeoutMs: 200 });
    expect(status).toBe(200);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const pieces = body[Symbol.asyncIterator]();
    client.upstream.sockets[0]?.write('2\r\nhi\r\n0\r\n\r\n');
    expect(String((await pieces.next()).value)).toBe('hi');
    expect((await pieces.next()).done).toBe(true);
  });
});

describe('the connections to an untrusted server', () => {
  it('are opened with the connector only, regardless of host name and environment', async () => {
    const upstream = await startHttpsUpstream((_request, response) => response.end('right'));
    const other = await startHttpUpstream((_request, response) => response.end('wrong'));
    process.env['HTTPS_PROXY'] = process.env['HTTP_PROXY'] = other.origin;
    cleanups.push(
      () => delete process.env['HTTPS_PROXY'],
      () => delete process.env['HTTP_PROXY'],
    );
    const client = createTlsClient(upstream, `${LOOPBACK}:${other.port}`);
    expect(await send(client)).toEqual({ status: 200, text: 'right' });
    expect(other.sockets).toHaveLength(0);
  });

  it('are reused, and replaced when the server has closed them', async () => {
    const upstream = await startHttpsUpstream((_request, response) => response.end('ok'));
    const connect = tlsConnector(upstream);
    const opened: Duplex[] = [];
    const client = createClientOver(async (signal) => {
      const stream = await connect(signal);
      opened.push(stream);
      return stream;
    });
    await send(client);
    await send(client);
    expect(upstream.sockets).toHaveLength(1);
    upstream.sockets[0]?.destroy();
    await until(() => opened[0]?.destroyed === true);
    await send(client);
    expect(upstream.sockets).toHaveLength(2);
  });

  it('are kept open by four at most when idle', async () => {
    const pendingResponses: (() => void)[] = [];
    const upstream = await startHttpsUpstream((_request, response) =>
      pendingResponses.push(() => response.end('ok')),
    );
    const client = createTlsClient(upstream);
    const responses = Array.from({ length: 6 }, () => send(client));
    await until(() => pendingResponses.length === 6);
    for (const respond of pendingResponses) respond();
    await Promise.all(responses);
    await until(() => upstream.sockets.filter((socket) => socket.destroyed).length === 2);
  });

  it('are closed by closeWhenIdle if they are idle, and the others when they become idle', async () => {
    const pendingResponses: (() => void)[] = [];
    const upstream = await startHttpsUpstream((_request, response) =>
      pendingResponses.push(() => response.end('ok')),
    );
    const client = createTlsClient(upstream);
    const first = send(client);
    await until(() => pendingResponses.length === 1);
    const second = send(client);
    await until(() => pendingResponses.length === 2);
    pendingResponses[0]?.();
    await first;
    client.closeWhenIdle();
    await waitForClose(upstream.sockets[0]);
    pendingResponses[1]?.();
    expect(await second).toEqual({ status: 200, text: 'ok' });
    await waitForClose(upstream.sockets[1]);
    const third = send(client);
    await until(() => pendingResponses.length === 3);
    pendingResponses[2]?.();
    expect(await third).toEqual({ status: 200, text: 'ok' });
    await waitForClose(upstream.sockets[2]);
  });

  it('are closed by close, also those being opened', async () => {
    const upstream = await startHttpsUpstream(() => undefined);
    const stalled = await startTcpUpstream((socket) => socket.resume());
    const open = createTlsClient(upstream);
    const opening = createTlsClient(stalled);
    const requests = [send(open), send(opening)];
    await until(() => upstream.requests.length === 1 && stalled.sockets.length === 1);
    void open.close();
    void opening.close();
    for (const attempt of requests)
      await expect(attempt).rejects.toEqual(errorWithCode('upstream_unreachable'));
    await waitForClose(upstream.sockets[0]);
    await waitForClose(stalled.sockets[0]);
  });

  it('fail a request with the error of the connector as the cause', async () => {
    const cause = new Error('not there');
    await expect(send(createClientOver(() => Promise.reject(cause)))).rejects.toMatchObject({ cause });
  });

  it('fail a request at its time limit or signal while they are being opened', async () => {
    const stalled = createClientOver(() => new Promise(() => undefined));
    await expect(send(stalled, { timeoutMs: 200 })).rejects.toEqual(errorWithCode('upstream_timeout'));
    const stop = new AbortController();
    const response = send(stalled, { signal: stop.signal });
    const reason = new Error('enough');
    stop.abort(reason);
    await expect(response).rejects.toBe(reason);
  });
});

describe('a connection that is a channel of SSH', () => {
  /** Like a channel of ssh2: `destroy` closes the other end, takes no error, and sets no flag. */
  async function startChannelServer(respond: (socket: Socket) => void) {
    const upstream = await startTcpUpstream((socket) => socket.once('data', () => respond(socket)));
    const dials = createTestDialer();
    const drained = Promise.withResolvers<undefined>();
    const client = createClientOver(async (signal) => {
      const socket = await dials.connect(LOOPBACK, upstream.port, signal);
      const channel = new Duplex({
        emitClose: false,
        autoDestroy: false,
        read: () => void socket.resume(),
        write: (chunk: Buffer, _encoding, done) => void socket.write(chunk, done),
        final: (done) => void socket.end(done),
      });
      socket.on('data', (chunk) => {
        if (!channel.push(chunk)) socket.pause();
      });
      socket.on('close', () => channel.push(null));
      channel.on('end', () => drained.resolve(undefined));
      return Object.assign(channel, {
        destroy() {
          socket.destroy();
          channel.resume();
          return channel;
        },
      });
    });
    return { client, upstream, drained: drained.promise };
  }

  it('is used for requests and for the raw connection, with back pressure', async () => {
    const { client } = await startChannelServer((socket) =>
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'),
    );
    expect(await send(client)).toEqual({ status: 200, text: 'ok' });
    let writtenBytes = 0;
    const raw = await startChannelServer((socket) => {
      socket.write(SWITCH);
      const write = () => {
        while (!socket.destroyed && socket.write('x'.repeat(65_536))) writtenBytes += 65_536;
      };
      socket.on('drain', write);
      write();
    });
    const stream = await raw.client.upgrade({ ...GET, method: 'POST' });
    if ('status' in stream) throw new Error('it was refused');
    let previousBytes = -1;
    while (writtenBytes !== previousBytes) {
      previousBytes = writtenBytes;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    expect(writtenBytes).toBeLessThan(32 * 2 ** 20);
    stream.destroy();
    await waitForClose(raw.upstream.sockets[0]);
  });

  for (const [what, headers] of [
    ['a body without length', OK],
    ['chunks', `${OK}transfer-encoding: chunked\r\n`],
    ['headers', 'HTTP/1.1 200 OK\r\nx: '],
  ] as const) {
    it(`is closed and drained after a limit is exceeded by ${what}`, async () => {
      const { client, upstream, drained } = await startChannelServer((socket) => {
        socket.write(what === 'headers' ? headers : `${headers}\r\n`);
        writeForever(socket, what === 'chunks' ? `400\r\n${'x'.repeat(1024)}\r\n` : 'x'.repeat(1024));
      });
      await expect(send(client)).rejects.toMatchObject({
        code: expect.stringMatching(/^upstream_(malformed|unreachable)$/),
      });
      await waitForClose(upstream.sockets[0]);
      await drained;
    });
  }

  it('fails when it ends before the response', async () => {
    const { client } = await startChannelServer((socket) => socket.end(`${OK}content-length: 9\r\n\r\nhalf`));
    await expect(send(client)).rejects.toEqual(errorWithCode('upstream_unreachable'));
  });
});

describe('requesting the raw connection', () => {
  it('returns it with the bytes after the response, and works in both directions', async () => {
    const client = await startServer((socket) => socket.write(`${SWITCH}early`));
    const stream = await client.upgrade({ ...GET, method: 'POST' });
    if ('status' in stream) throw new Error('it was refused');
    const pieces = stream[Symbol.asyncIterator]();
    expect(String((await pieces.next()).value)).toBe('early');
    stream.write('sent');
    const [socket] = client.upstream.sockets;
    socket?.on('data', (data: Buffer) => socket.write(`got ${data.toString()}`));
    expect(String((await pieces.next()).value)).toBe('got sent');
    stream.destroy();
    await waitForClose(socket);
  });

  it('returns the response of a server that refuses', async () => {
    const client = await startServer((socket) =>
      socket.write('HTTP/1.1 409 No\r\ncontent-length: 0\r\n\r\n'),
    );
    expect(await client.upgrade(GET)).toMatchObject({ status: 409 });
  });
});

describe('reading lines', () => {
  async function lines(pieces: string[], max = 10, limits: object = {}): Promise<string[]> {
    const found: string[] = [];
    const body = Readable.from(pieces.map((piece) => Buffer.from(piece)));
    for await (const line of readLines(body, { maxLineBytes: max, ...limits }, never)) found.push(line);
    return found;
  }

  it('finds lines across chunk borders', async () => {
    expect(await lines(['a\nb', 'c\n', '\nd'])).toEqual(['a', 'bc', '', 'd']);
  });

  it('fails on a line that exceeds the limit', async () => {
    await expect(lines(['x'.repeat(11)])).rejects.toEqual(errorWithCode('upstream_malformed'));
    expect(await lines(['x'.repeat(10)])).toEqual(['x'.repeat(10)]);
  });

  it('fails when all lines together exceed their limit', async () => {
    await expect(lines(['x\n', 'x\n', 'x\n'], 10, { maxBytes: 5 })).rejects.toEqual(
      errorWithCode('upstream_malformed'),
    );
    expect(await lines(['x\n', 'x\n'], 10, { maxBytes: 5 })).toEqual(['x', 'x']);
  });

  it('can drop a last line without a line break', async () => {
    expect(await lines(['a\nb'], 10, { skipUnterminated: true })).toEqual(['a']);
  });

  it('fails when its signal aborts, also before it begins', async () => {
    const body = new Readable({ read: () => undefined });
    const aborted = AbortSignal.abort(new Error('enough'));
    await expect(readLines(body, { maxLineBytes: 10 }, aborted).next()).rejects.toEqual(
      errorWithCode('upstream_unreachable'),
    );
    expect(body.destroyed).toBe(true);
  });
});
