import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { expect } from '@jest/globals';
import type { DialerOptions, UpstreamRequest } from '../../src/lib/net/dialer.ts';
import {
  LOOPBACK,
  upstreamRequest,
  createTestDialer,
  fullBacklog,
  startHttpUpstream,
  startTcpUpstream,
  until,
  type Upstream,
} from './local-upstreams.ts';

/** Longer than a test may take, so that only the cancellation ends a request. */
const NEVER_MS = 60_000;

/** Brings requests into one phase, repeatedly. */
export interface Phase {
  start(signal: AbortSignal): Promise<unknown>;
  /** Resolves when the request has reached the phase. */
  reached(): Promise<unknown>;
  /** True when its connection has been observed to end. */
  isClosed(): boolean;
}

/**
 * Starts a request, cancels it in the phase, and checks that its connection ends and that it fails with the reason of
 * the signal. Nothing else ends it: all its timeouts are {@link NEVER_MS}.
 * @returns the time in ms from the cancellation until the end was observed.
 */
export async function cancelInPhase(phase: Phase): Promise<number> {
  const controller = new AbortController();
  const reason = new Error('the client left');
  const failed = expect(phase.start(controller.signal)).rejects.toBe(reason);
  failed.catch(() => undefined); // Awaited below; must not end the process when the test times out before.
  await phase.reached();
  expect(phase.isClosed()).toBe(false);
  const cancelledAtMs = performance.now();
  controller.abort(reason);
  await until(() => phase.isClosed());
  const tookMs = performance.now() - cancelledAtMs;
  await failed;
  return tookMs;
}

/** The phases by name. Only Linux leaves connections unanswered when the accept queue is full. */
export const CANCEL_PHASES: readonly (readonly [name: string, prepare: () => Phase | Promise<Phase>])[] = [
  ['while the name is being resolved', resolving],
  ...(process.platform === 'linux' ? [['while TCP is connecting', connecting] as const] : []),
  ['during the TLS handshake', handshaking],
  ['while the request is being sent', sending],
  ['while waiting for the first byte (POST)', () => waiting('POST')],
  ['while waiting for the first byte (GET)', () => waiting('GET')],
  ['while the response streams', streaming],
  ['while a slow reader applies back pressure', backpressured],
];

const longTimeoutDialer = (options: Partial<DialerOptions> = {}) =>
  createTestDialer({ connectTimeoutMs: NEVER_MS, ...options });

const longTimeoutRequest = (url: string, options: Partial<UpstreamRequest>) =>
  upstreamRequest(url, { firstByteTimeoutMs: NEVER_MS, idleTimeoutMs: NEVER_MS, ...options });

/** There is no connection yet: the rejection of the request counts as its end. */
function resolving(): Phase {
  let [isAsked, isOver] = [false, false];
  const from = longTimeoutDialer({
    lookup: () => {
      isAsked = true;
      return new Promise(() => undefined);
    },
  });
  return {
    start(signal) {
      isAsked = isOver = false;
      const request = from.request(longTimeoutRequest('http://host.example', { signal }));
      request.catch(() => (isOver = true));
      return request;
    },
    reached: () => until(() => isAsked),
    isClosed: () => isOver,
  };
}

async function connecting(): Promise<Phase> {
  const port = await fullBacklog(LOOPBACK);
  const from = longTimeoutDialer();
  const before = countSockets();
  return {
    start: (signal) => from.request(longTimeoutRequest(`http://${LOOPBACK}:${port}`, { signal })),
    // The socket exists and stays in the connecting state.
    reached: () => until(() => countSockets() > before),
    isClosed: () => countSockets() === before,
  };
}

/** For phases that the upstream can observe, as well as the end of the connection. */
function observedByUpstream(
  upstream: Upstream,
  start: (signal: AbortSignal) => Promise<unknown>,
  reached: (socket: Socket) => Promise<unknown>,
): Phase {
  let current: Socket | undefined;
  return {
    start(signal) {
      current = undefined;
      upstream.sockets.length = 0;
      return start(signal);
    },
    async reached() {
      await until(() => upstream.sockets.length > 0);
      current = upstream.sockets[0];
      if (current !== undefined) await reached(current);
    },
    isClosed: () => current?.closed === true,
  };
}

async function handshaking(): Promise<Phase> {
  const upstream = await startTcpUpstream((socket) => socket.pause());
  const from = longTimeoutDialer();
  return observedByUpstream(
    upstream,
    (signal) => from.request(longTimeoutRequest(`https://${LOOPBACK}:${upstream.port}`, { signal })),
    // The client has sent its ClientHello and receives no response.
    async (socket) => {
      socket.resume();
      await once(socket, 'data');
    },
  );
}

async function sending(): Promise<Phase> {
  const upstream = await startTcpUpstream((socket) => socket.pause());
  const from = longTimeoutDialer();
  const body = Buffer.alloc(16 * 1024 * 1024);
  let both = 0;
  return {
    start(signal) {
      for (const socket of upstream.sockets.splice(0)) socket.destroy();
      return from.request(longTimeoutRequest(upstream.origin, { method: 'POST', body, signal }));
    },
    async reached() {
      await until(() => upstream.sockets.length > 0);
      const [socket] = upstream.sockets;
      if (socket !== undefined) await once(socket.resume(), 'data');
      socket?.pause();
      both = countSockets();
    },
    // The upstream does not read, so it would see the end only after the kernel's buffered data.
    isClosed: () => countSockets() < both,
  };
}

async function waiting(method: 'GET' | 'POST'): Promise<Phase> {
  const upstream = await startHttpUpstream(() => undefined);
  const from = longTimeoutDialer();
  return observedByUpstream(
    upstream,
    (signal) => from.request(longTimeoutRequest(upstream.origin, { method, signal })),
    (socket) => until(() => upstream.requests.at(-1)?.socket === socket),
  );
}

async function streaming(): Promise<Phase> {
  const upstream = await startHttpUpstream((_request, response) => response.write('part'));
  const from = longTimeoutDialer();
  let pieces = 0;
  return observedByUpstream(
    upstream,
    async (signal) => {
      pieces = 0;
      const { body } = await from.request(longTimeoutRequest(upstream.origin, { signal }));
      for await (const piece of body) pieces += String(piece).length;
    },
    () => until(() => pieces > 0),
  );
}

async function backpressured(): Promise<Phase> {
  const piece = Buffer.alloc(512 * 1024);
  const upstream = await startHttpUpstream((_request, response) => response.write(piece));
  const from = longTimeoutDialer();
  let body: Readable | undefined;
  return observedByUpstream(
    upstream,
    async (signal) => {
      body = undefined;
      body = (await from.request(longTimeoutRequest(upstream.origin, { signal }))).body;
      await new Promise((_resolve, reject) => body?.once('error', reject));
    },
    () => until(() => (body?.readableLength ?? 0) >= 64 * 1024),
  );
}

/** Number of this process's open or connecting sockets, on both sides. */
function countSockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
}
