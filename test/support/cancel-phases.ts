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

/** Longer than a test may take: what ends a request within it, is the cancel. */
const NEVER_MS = 60_000;

/** A request in one phase of its life, over and over again. */
export interface Phase {
  start(signal: AbortSignal): Promise<unknown>;
  /** Resolves when the request is in the phase meant. */
  reached(): Promise<unknown>;
  /** True once its connection has been seen to end. */
  isClosed(): boolean;
}

/**
 * Begins a request, cancels it in the phase, and sees its connection end and the request fail with the reason of
 * the signal. Nothing else ends it: all its time-outs are {@link NEVER_MS}.
 * @returns the time from the cancel until the end was seen, in ms.
 */
export async function cancelInPhase(phase: Phase): Promise<number> {
  const controller = new AbortController();
  const reason = new Error('the client left');
  const failed = expect(phase.start(controller.signal)).rejects.toBe(reason);
  failed.catch(() => undefined); // Awaited below; a test that times out before must not end the process.
  await phase.reached();
  expect(phase.isClosed()).toBe(false);
  const cancelledAtMs = performance.now();
  controller.abort(reason);
  await until(() => phase.isClosed());
  const tookMs = performance.now() - cancelledAtMs;
  await failed;
  return tookMs;
}

/** What is cancelled, by the words for it. A full queue of connections stays silent on Linux only. */
export const CANCEL_PHASES: readonly (readonly [name: string, prepare: () => Phase | Promise<Phase>])[] = [
  ['while the name is being resolved', resolving],
  ...(process.platform === 'linux' ? [['while TCP is connecting', connecting] as const] : []),
  ['during the TLS handshake', handshaking],
  ['while the request is being sent', sending],
  ['while waiting for the first byte (POST)', () => waiting('POST')],
  ['while waiting for the first byte (GET)', () => waiting('GET')],
  ['while the answer streams', streaming],
  ['while a slow reader holds the answer back', backpressured],
];

const patientDialer = (options: Partial<DialerOptions> = {}) =>
  createTestDialer({ connectTimeoutMs: NEVER_MS, ...options });

const patientRequest = (url: string, options: Partial<UpstreamRequest>) =>
  upstreamRequest(url, { firstByteTimeoutMs: NEVER_MS, idleTimeoutMs: NEVER_MS, ...options });

/** There is no connection yet: its end is that nobody waits any more. */
function resolving(): Phase {
  let [isAsked, isOver] = [false, false];
  const from = patientDialer({
    lookup: () => {
      isAsked = true;
      return new Promise(() => undefined);
    },
  });
  return {
    start(signal) {
      isAsked = isOver = false;
      const request = from.request(patientRequest('http://host.example', { signal }));
      request.catch(() => (isOver = true));
      return request;
    },
    reached: () => until(() => isAsked),
    isClosed: () => isOver,
  };
}

async function connecting(): Promise<Phase> {
  const port = await fullBacklog(LOOPBACK);
  const from = patientDialer();
  const before = countSockets();
  return {
    start: (signal) => from.request(patientRequest(`http://${LOOPBACK}:${port}`, { signal })),
    // Nothing but time could connect it: the socket is there, and stays in the making.
    reached: () => until(() => countSockets() > before),
    isClosed: () => countSockets() === before,
  };
}

/** For phases that the upstream can see: it tells when they are reached, and when the connection closed. */
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
  const from = patientDialer();
  return observedByUpstream(
    upstream,
    (signal) => from.request(patientRequest(`https://${LOOPBACK}:${upstream.port}`, { signal })),
    // The client has said hello and gets no answer.
    async (socket) => {
      socket.resume();
      await once(socket, 'data');
    },
  );
}

async function sending(): Promise<Phase> {
  const upstream = await startTcpUpstream((socket) => socket.pause());
  const from = patientDialer();
  const body = Buffer.alloc(16 * 1024 * 1024);
  let both = 0;
  return {
    start(signal) {
      for (const socket of upstream.sockets.splice(0)) socket.destroy();
      return from.request(patientRequest(upstream.origin, { method: 'POST', body, signal }));
    },
    async reached() {
      await until(() => upstream.sockets.length > 0);
      const [socket] = upstream.sockets;
      if (socket !== undefined) await once(socket.resume(), 'data');
      socket?.pause();
      both = countSockets();
    },
    // The upstream, which reads nothing, would see the end behind all that the kernel holds for it.
    isClosed: () => countSockets() < both,
  };
}

async function waiting(method: 'GET' | 'POST'): Promise<Phase> {
  const upstream = await startHttpUpstream(() => undefined);
  const from = patientDialer();
  return observedByUpstream(
    upstream,
    (signal) => from.request(patientRequest(upstream.origin, { method, signal })),
    (socket) => until(() => upstream.requests.at(-1)?.socket === socket),
  );
}

async function streaming(): Promise<Phase> {
  const upstream = await startHttpUpstream((_request, response) => response.write('part'));
  const from = patientDialer();
  let pieces = 0;
  return observedByUpstream(
    upstream,
    async (signal) => {
      pieces = 0;
      const { body } = await from.request(patientRequest(upstream.origin, { signal }));
      for await (const piece of body) pieces += String(piece).length;
    },
    () => until(() => pieces > 0),
  );
}

async function backpressured(): Promise<Phase> {
  const piece = Buffer.alloc(512 * 1024);
  const upstream = await startHttpUpstream((_request, response) => response.write(piece));
  const from = patientDialer();
  let body: Readable | undefined;
  return observedByUpstream(
    upstream,
    async (signal) => {
      body = undefined;
      body = (await from.request(patientRequest(upstream.origin, { signal }))).body;
      await new Promise((_resolve, reject) => body?.once('error', reject));
    },
    () => until(() => (body?.readableLength ?? 0) >= 64 * 1024),
  );
}

/** Sockets of this process that are open or in the making, on both sides. */
function countSockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
}
