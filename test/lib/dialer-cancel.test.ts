import { getEventListeners, once } from 'node:events';
import type { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from '@jest/globals';
import {
  LOOPBACK,
  call,
  dialer,
  fullBacklog,
  failing,
  http,
  tcp,
  until,
  type Upstream,
} from '../support/local-upstreams.ts';

/** The promise: a client that leaves has its upstream closed within this time. */
const CANCEL_LIMIT_MS = 50;
const RUNS = 100;

interface Phase {
  start(signal: AbortSignal): Promise<unknown>;
  /** Resolves when the request is in the phase meant. */
  reached(): Promise<unknown>;
  /** True once its connection has been seen to end. */
  isGone(): boolean;
}

/**
 * Cancels `RUNS` requests in a phase and answers the longest time until the end was seen. Time is the
 * thread's own, which never rests meanwhile: what a busy machine takes away does not count.
 */
async function worstCancelMs(phase: Phase): Promise<number> {
  let worst = 0;
  for (let run = 0; run < RUNS; run++) worst = Math.max(worst, await cancelMs(phase));
  return worst;
}

async function cancelMs(phase: Phase): Promise<number> {
  const controller = new AbortController();
  const reason = new Error('the client left');
  const failed = expect(phase.start(controller.signal)).rejects.toBe(reason);
  failed.catch(() => undefined); // Awaited below; a test that times out before must not end the process.
  await phase.reached();
  const startedAt = process.threadCpuUsage();
  controller.abort(reason);
  await until(() => phase.isGone());
  const { user, system } = process.threadCpuUsage(startedAt);
  await failed;
  return (user + system) / 1_000;
}

describe('cancelling closes the upstream within 50 ms, worst of 100, and fails with the reason of the signal', () => {
  /** For phases that the upstream can see: it tells when they are reached, and when the connection closed. */
  function seenBy(
    upstream: Upstream,
    start: (signal: AbortSignal) => Promise<unknown>,
    reached: (socket: Socket) => Promise<unknown>,
  ): Promise<number> {
    let current: Socket | undefined;
    return worstCancelMs({
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
      isGone: () => current?.closed === true,
    });
  }

  it('while the name is being resolved: nothing is dialled when the answer comes after all', async () => {
    const upstream = await http();
    let isAsked = false;
    const release: (() => void)[] = [];
    const lookup = () =>
      new Promise<string[]>((resolve) => {
        isAsked = true;
        release.push(() => resolve([LOOPBACK]));
      });
    const waiting = dialer({ lookup });
    let isOver = false;
    const start = (signal: AbortSignal) => {
      isAsked = isOver = false;
      const request = waiting.request(call(`http://host.example:${upstream.port}`, { signal }));
      request.catch(() => (isOver = true));
      return request;
    };
    const worst = await worstCancelMs({ start, reached: () => until(() => isAsked), isGone: () => isOver });
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
    for (const answer of release) answer();
    // By the time that a later request is through, an earlier connection would have arrived.
    expect(await text((await dialer().request(call(upstream.origin))).body)).toBe('ok');
    expect(upstream.sockets).toHaveLength(1);
  });

  // A full queue of connections stays silent on Linux only.
  (process.platform === 'linux' ? it : it.skip)('while TCP is connecting', async () => {
    const port = await fullBacklog(LOOPBACK);
    const from = dialer();
    const before = countSockets();
    const worst = await worstCancelMs({
      start: (signal) => from.request(call(`http://${LOOPBACK}:${port}`, { signal })),
      // Nothing but time could connect it: the socket is there, and stays in the making.
      reached: () => until(() => countSockets() > before),
      isGone: () => countSockets() === before,
    });
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it('during the TLS handshake', async () => {
    const upstream = await tcp((socket) => socket.pause());
    const from = dialer();
    const worst = await seenBy(
      upstream,
      (signal) => from.request(call(`https://${LOOPBACK}:${upstream.port}`, { signal })),
      // The client has said hello and gets no answer.
      async (socket) => {
        socket.resume();
        await once(socket, 'data');
      },
    );
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it('while the request is being sent', async () => {
    const upstream = await tcp((socket) => socket.pause());
    const from = dialer();
    const body = Buffer.alloc(16 * 1024 * 1024);
    let both = 0;
    const worst = await worstCancelMs({
      start(signal) {
        for (const socket of upstream.sockets.splice(0)) socket.destroy();
        return from.request(call(upstream.origin, { method: 'POST', body, signal }));
      },
      async reached() {
        await until(() => upstream.sockets.length > 0);
        const [socket] = upstream.sockets;
        if (socket !== undefined) await once(socket.resume(), 'data');
        socket?.pause();
        both = countSockets();
      },
      // The upstream, which reads nothing, would see the end behind all that the kernel holds for it.
      isGone: () => countSockets() < both,
    });
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it.each(['POST', 'GET'] as const)('while waiting for the first byte (%s)', async (method) => {
    const upstream = await http(() => undefined);
    const from = dialer();
    const worst = await seenBy(
      upstream,
      (signal) => from.request(call(upstream.origin, { method, signal })),
      (socket) => until(() => upstream.requests.at(-1)?.socket === socket),
    );
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it('while the answer streams', async () => {
    const upstream = await http((_request, response) => response.write('part'));
    const from = dialer();
    let pieces = 0;
    const worst = await seenBy(
      upstream,
      async (signal) => {
        pieces = 0;
        const { body } = await from.request(call(upstream.origin, { signal }));
        for await (const piece of body) pieces += String(piece).length;
      },
      () => until(() => pieces > 0),
    );
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it('while a slow reader holds the answer back', async () => {
    const piece = Buffer.alloc(512 * 1024);
    const upstream = await http((_request, response) => response.write(piece));
    const from = dialer();
    let body: Readable | undefined;
    const worst = await seenBy(
      upstream,
      async (signal) => {
        body = undefined;
        body = (await from.request(call(upstream.origin, { signal }))).body;
        await new Promise((_resolve, reject) => body?.once('error', reject));
      },
      () => until(() => (body?.readableLength ?? 0) >= 64 * 1024),
    );
    expect(worst).toBeLessThanOrEqual(CANCEL_LIMIT_MS);
  });

  it('before anything has begun', async () => {
    const upstream = await http();
    const reason = new Error('the client left');
    await expect(dialer().request(call(upstream.origin, { signal: AbortSignal.abort(reason) }))).rejects.toBe(
      reason,
    );
    expect(upstream.sockets).toHaveLength(0);
  });

  it('on an idle connection about to be used again', async () => {
    const upstream = await http();
    const reusing = dialer();
    await text((await reusing.request(call(upstream.origin))).body);
    const controller = new AbortController();
    const request = reusing.request(call(upstream.origin, { signal: controller.signal }));
    const reason = new Error('the client left');
    controller.abort(reason);
    await expect(request).rejects.toBe(reason);
    expect(await text((await reusing.request(call(upstream.origin))).body)).toBe('ok');
    expect(upstream.requests).toHaveLength(2);
  });

  it('leaves no listener on the signal behind', async () => {
    const upstream = await http();
    const from = dialer();
    const { signal } = new AbortController();
    await text((await from.request(call(upstream.origin, { signal }))).body);
    await text((await from.request(call(upstream.origin, { signal }))).body);
    const failed = from.request(call('http://169.254.169.254', { signal }));
    await expect(failed).rejects.toEqual(failing('endpoint_forbidden'));
    const silent = await http(() => undefined);
    await expect(from.request(call(silent.origin, { signal, firstByteTimeoutMs: 10 }))).rejects.toEqual(
      failing('upstream_timeout'),
    );
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('and leaves a finished exchange and its connection alone', async () => {
    const upstream = await http();
    const reusing = dialer();
    const controller = new AbortController();
    await text((await reusing.request(call(upstream.origin, { signal: controller.signal }))).body);
    controller.abort();
    await text((await reusing.request(call(upstream.origin))).body);
    expect(upstream.sockets).toHaveLength(1);
  });
});

/** Sockets of this process that are open or in the making, on both sides. */
function countSockets(): number {
  return process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length;
}
