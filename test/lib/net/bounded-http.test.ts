import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, describe, expect, it } from '@jest/globals';
import {
  createBoundedHttpClient,
  readLines,
  type BoundedHttpClient,
  type BoundedRequest,
} from '../../../src/lib/net/bounded-http.ts';
import { createGuardedAgent } from '../../../src/lib/net/guarded-agent.ts';
import {
  LOOPBACK,
  waitForClose,
  createTestDialer,
  errorWithCode,
  startHttpUpstream,
  startTcpUpstream,
  until,
  type Upstream,
} from '../../support/local-upstreams.ts';

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup();
});

const GET: BoundedRequest = { method: 'GET', path: '/x', timeoutMs: 5_000 };
const OK = 'HTTP/1.1 200 OK\r\n';

function createClient(upstream: Upstream): BoundedHttpClient {
  const dials = createTestDialer();
  const guarded = createGuardedAgent((signal) => dials.connect(LOOPBACK, upstream.port, signal));
  cleanups.push(() => guarded.close());
  return createBoundedHttpClient(guarded.agent, { host: 'server.test', port: 443 });
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

describe('requesting the raw connection', () => {
  const SWITCH = 'HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n';

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
  async function lines(pieces: string[], max = 10): Promise<string[]> {
    const found: string[] = [];
    for await (const line of readLines(Readable.from(pieces.map((piece) => Buffer.from(piece))), max))
      found.push(line);
    return found;
  }

  it('finds lines across chunk borders', async () => {
    expect(await lines(['a\nb', 'c\n', '\nd'])).toEqual(['a', 'bc', '', 'd']);
  });

  it('fails on a line that exceeds the limit', async () => {
    await expect(lines(['x'.repeat(11)])).rejects.toEqual(errorWithCode('upstream_malformed'));
    expect(await lines(['x'.repeat(10)])).toEqual(['x'.repeat(10)]);
  });
});
