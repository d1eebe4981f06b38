import { getEventListeners } from 'node:events';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from '@jest/globals';
import { CANCEL_PHASES, cancelInPhase } from '../../support/cancel-phases.ts';
import {
  LOOPBACK,
  upstreamRequest,
  createTestDialer,
  errorWithCode,
  startHttpUpstream,
  until,
} from '../../support/local-upstreams.ts';

const ROUNDS = 20;

describe('cancelling closes the connection and fails with the reason of the signal', () => {
  // The benchmark (npm run bench) measures the delay for the same phases.
  it.each(CANCEL_PHASES)('%s', async (_name, prepare) => {
    const phase = await prepare();
    for (let round = 0; round < ROUNDS; round += 1) await cancelInPhase(phase);
  });

  it('while the name is being resolved: nothing is dialled when the lookup completes later', async () => {
    const upstream = await startHttpUpstream();
    const lookupResult = Promise.withResolvers<string[]>();
    let isAsked = false;
    const lookup = () => {
      isAsked = true;
      return lookupResult.promise;
    };
    const controller = new AbortController();
    const url = `http://host.example:${upstream.port}`;
    const request = createTestDialer({ lookup }).request(upstreamRequest(url, { signal: controller.signal }));
    await until(() => isAsked);
    const reason = new Error('the client left');
    controller.abort(reason);
    await expect(request).rejects.toBe(reason);
    lookupResult.resolve([LOOPBACK]);
    // When a later request is complete, an earlier connection would have been accepted.
    expect(await text((await createTestDialer().request(upstreamRequest(upstream.origin))).body)).toBe('ok');
    expect(upstream.sockets).toHaveLength(1);
  });

  it('before the request begins', async () => {
    const upstream = await startHttpUpstream();
    const reason = new Error('the client left');
    await expect(
      createTestDialer().request(upstreamRequest(upstream.origin, { signal: AbortSignal.abort(reason) })),
    ).rejects.toBe(reason);
    expect(upstream.sockets).toHaveLength(0);
  });

  it('on an idle connection that is about to be reused', async () => {
    const upstream = await startHttpUpstream();
    const reusing = createTestDialer();
    await text((await reusing.request(upstreamRequest(upstream.origin))).body);
    const controller = new AbortController();
    const request = reusing.request(upstreamRequest(upstream.origin, { signal: controller.signal }));
    const reason = new Error('the client left');
    controller.abort(reason);
    await expect(request).rejects.toBe(reason);
    expect(await text((await reusing.request(upstreamRequest(upstream.origin))).body)).toBe('ok');
    expect(upstream.requests).toHaveLength(2);
  });

  it('leaves no listener on the signal', async () => {
    const upstream = await startHttpUpstream();
    const from = createTestDialer();
    const { signal } = new AbortController();
    await text((await from.request(upstreamRequest(upstream.origin, { signal }))).body);
    await text((await from.request(upstreamRequest(upstream.origin, { signal }))).body);
    const failed = from.request(upstreamRequest('http://169.254.169.254', { signal }));
    await expect(failed).rejects.toEqual(errorWithCode('endpoint_forbidden'));
    const silent = await startHttpUpstream(() => undefined);
    await expect(
      from.request(upstreamRequest(silent.origin, { signal, firstByteTimeoutMs: 10 })),
    ).rejects.toEqual(errorWithCode('upstream_timeout'));
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('and does not affect a finished request and its connection', async () => {
    const upstream = await startHttpUpstream();
    const reusing = createTestDialer();
    const controller = new AbortController();
    await text((await reusing.request(upstreamRequest(upstream.origin, { signal: controller.signal }))).body);
    controller.abort();
    await text((await reusing.request(upstreamRequest(upstream.origin))).body);
    expect(upstream.sockets).toHaveLength(1);
  });
});
