import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import {
  connect,
  createServer as createTcpServer,
  type AddressInfo,
  type Server,
  type Socket,
} from 'node:net';
import { afterEach, expect } from '@jest/globals';
import {
  createDialer,
  type Dialer,
  type DialerOptions,
  type UpstreamRequest,
} from '../../src/lib/net/dialer.ts';
import { certificate } from './certificate.ts';

export const PUBLIC = '93.184.216.34';
export const LOOPBACK = '127.0.0.1';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Runs `cleanup` after the current test, in reverse order. */
function afterCurrentTest(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

/** A dialer in local mode; closed after the test. */
export function createTestDialer(options: Partial<DialerOptions> = {}): Dialer {
  const created = createDialer({
    mode: 'local',
    allow: undefined,
    deny: [],
    forbidden: () => [],
    connectTimeoutMs: 5_000,
    ...options,
  });
  cleanups.push(() => created.close());
  return created;
}

export interface Upstream {
  port: number;
  origin: string;
  /** Accepted connections, in order. */
  sockets: Socket[];
  requests: IncomingMessage[];
}

type RespondHandler = (request: IncomingMessage, response: ServerResponse) => void;

async function startListening(server: Server, scheme: string, port = 0): Promise<Upstream> {
  const upstream: Upstream = { port: 0, origin: '', sockets: [], requests: [] };
  const all = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    upstream.sockets.push(socket);
    all.add(socket);
    socket.once('close', () => all.delete(socket));
    socket.on('error', () => undefined);
  });
  server.on('request', (request: IncomingMessage) => upstream.requests.push(request));
  server.listen(port, LOOPBACK);
  await once(server, 'listening');
  upstream.port = (server.address() as AddressInfo).port;
  upstream.origin = `${scheme}://${LOOPBACK}:${upstream.port}`;
  cleanups.push(async () => {
    for (const socket of all) socket.destroy();
    server.close();
    await once(server, 'close');
  });
  return upstream;
}

const ok: RespondHandler = (_request, response) => response.end('ok');

/** @param options `keepAliveMs`: the idle timeout that it announces. */
export function startHttpUpstream(
  respond: RespondHandler = ok,
  options: { keepAliveMs?: number; port?: number } = {},
) {
  const server = createHttpServer({ keepAliveTimeout: options.keepAliveMs ?? 60_000 }, respond);
  return startListening(server, 'http', options.port);
}

/** Its certificate is valid for `upstream.test` and 127.0.0.1. */
export function startHttpsUpstream(respond: RespondHandler = ok): Promise<Upstream> {
  return startListening(createHttpsServer(certificate, respond), 'https');
}

export function startTcpUpstream(onConnection: (socket: Socket) => void): Promise<Upstream> {
  return startListening(createTcpServer(onConnection), 'http');
}

/** A guarded GET with long timeouts. */
export function upstreamRequest(url: string, options: Partial<UpstreamRequest> = {}): UpstreamRequest {
  return {
    url: new URL(url),
    method: 'GET',
    headers: {},
    isGuarded: true,
    signal: new AbortController().signal,
    firstByteTimeoutMs: 5_000,
    idleTimeoutMs: 5_000,
    ...options,
  };
}

/** Matches an error with this code. */
export const errorWithCode = (code: string): unknown => expect.objectContaining({ code });

/** A lookup that returns one list after the other, the last one repeatedly. `asked` collects the hosts. */
export function createSequentialLookup(...list: string[][]) {
  const asked: string[] = [];
  const lookup = (host: string) => {
    asked.push(host);
    return Promise.resolve(list[Math.min(asked.length, list.length) - 1] ?? []);
  };
  return { asked, lookup };
}

export async function waitForClose(socket: Socket | undefined): Promise<void> {
  if (socket === undefined) throw new Error('there was no connection');
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
}

const GIVE_UP_MS = 15_000;

/** Polls a condition once per turn of the event loop, for changes without an event. */
export async function until(isSo: () => boolean): Promise<void> {
  const deadlineMs = performance.now() + GIVE_UP_MS;
  while (!isSo()) {
    if (performance.now() > deadlineMs) throw new Error(`not within ${GIVE_UP_MS} ms: ${String(isSo)}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * A port at `host` that neither accepts nor refuses connections: its process sleeps and its accept queue is full. The
 * process exits after a minute, so that it does not outlive a killed test run.
 * Linux only: other systems still respond to the SYN.
 */
export async function fullBacklog(host: string): Promise<number> {
  const script = `const server = require('node:net').createServer();
    server.listen({ port: 0, host: '${host}', backlog: 1 }, () => {
      require('node:fs').writeSync(1, server.address().port + '\\n');
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
      process.exit();
    });`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  afterCurrentTest(async () => {
    child.kill('SIGKILL');
    await once(child, 'close');
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const port = Number(line.toString());
  // Linux accepts one connection more than the backlog, and then no longer responds to SYN packets.
  for (let count = 0; count < 2; count++) {
    const filler = connect(port, host);
    filler.on('error', () => undefined);
    afterCurrentTest(() => Promise.resolve(filler.destroy()));
    await once(filler, 'connect');
  }
  return port;
}
