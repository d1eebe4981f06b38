import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { SURFACES } from '../support/surfaces.ts';
import { until } from '../support/until.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

const ROUNDS = 5;

let upstream: Upstream;
/** Its timeouts are minutes, so only a client disconnect ends a request in these tests. */
let app: TestApp;

beforeAll(async () => {
  upstream = await startUpstream();
  const env = SURFACES.map(({ provider }) => [`UPSTREAM_${provider.toUpperCase()}_URL`, upstream.url]);
  app = await startApp({ env: Object.fromEntries(env) as Record<string, string> });
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});
afterEach(() => {
  upstream.reset();
});

describe.each(SURFACES)('a client disconnect from $name', (surface) => {
  const { path, provider, request } = surface;
  const streamed = { ...request, stream: true };
  let session: string;
  beforeAll(async () => {
    session = await app.signIn(await createUser({ tier: 'starter' }));
    await addKey(app, session, { provider, key: surface.createKey() });
  });

  const call = (json: object, signal: AbortSignal) =>
    app.call(path, { method: 'POST', session, json, signal });

  // The benchmark measures the delay (npm run bench).
  it.each<[string, Answer, object, boolean]>([
    ['while the upstream does not respond', fault.silent(), request, false],
    ['in the middle of a stream', answer.endlessStream({ everyMs: 5 }), streamed, true],
    ['in a stream that has stalled', answer.held(1, new Promise(() => undefined)), streamed, true],
    ['in the middle of a response that is not streamed', fault.slowBody(), request, false],
  ])('%s ends the upstream request', async (_name, upstreamAnswer, body, hasResponse) => {
    for (let round = 0; round < ROUNDS; round += 1) {
      upstream.reset();
      upstream.reply(upstreamAnswer);
      const client = new AbortController();
      const response = call(body, client.signal);
      response.catch(() => undefined);
      await upstream.received(1);
      if (hasResponse) await (await response).body?.getReader().read();
      expect(upstream.openConnections).toBe(1);
      client.abort();
      await upstream.closed(0);
    }
  });

  it('is logged once and leaves no open connection', async () => {
    const before = app.events('client_gone').length;
    const logged = app.events('answer_passed').length;
    upstream.reply(fault.silent());
    const client = new AbortController();
    const response = call(request, client.signal);
    await upstream.received(1);
    client.abort();
    await expect(response).rejects.toThrow();
    await upstream.closed(0);
    await until(
      () => app.events('client_gone').length,
      (count) => count === before + 1,
    );
    expect(app.events('answer_passed').slice(logged)).toMatchObject([
      { status: null, end: 'failed', provider, attempts: 1 },
    ]);
    expect(upstream.openConnections).toBe(0);
  });
});
