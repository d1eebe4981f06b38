import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';
import { until } from '../support/until.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../support/upstream.ts';

const ROUNDS = 5;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
const streamed = { ...hello, stream: true };

let openai: Upstream;
/** Its timeouts are minutes, so only a client disconnect ends a request in these tests. */
let app: TestApp;
let session: string;

beforeAll(async () => {
  openai = await startUpstream();
  app = await startApp({ env: { UPSTREAM_OPENAI_URL: openai.url } });
  session = await app.signIn(await createUser({ tier: 'starter' }));
  await addKey(app, session, { provider: 'openai', key: openAiKey() });
});
afterAll(async () => {
  await app.stop();
  await openai.stop();
});
afterEach(() => {
  openai.reset();
});

const chat = (json: object, signal: AbortSignal) =>
  app.call('/v1/chat/completions', { method: 'POST', session, json, signal });

describe('a client disconnect', () => {
  // The benchmark measures the delay (npm run bench).
  it.each<[string, Answer, object, boolean]>([
    ['while the upstream does not respond', fault.silent(), hello, false],
    ['in the middle of a stream', answer.endlessStream({ everyMs: 5 }), streamed, true],
    ['in a stream that has stalled', answer.held(1, new Promise(() => undefined)), streamed, true],
    ['in the middle of a response that is not streamed', fault.slowBody(), hello, false],
  ])('%s ends the upstream request', async (_name, upstreamAnswer, body, hasResponse) => {
    for (let round = 0; round < ROUNDS; round += 1) {
      openai.reset();
      openai.reply(upstreamAnswer);
      const client = new AbortController();
      const response = chat(body, client.signal);
      response.catch(() => undefined);
      await openai.received(1);
      if (hasResponse) await (await response).body?.getReader().read();
      expect(openai.openConnections).toBe(1);
      client.abort();
      await openai.closed(0);
    }
  });

  it('is logged once and leaves no open connection', async () => {
    const before = app.events('client_gone').length;
    const logged = app.events('answer_passed').length;
    openai.reply(fault.silent());
    const client = new AbortController();
    const response = chat(hello, client.signal);
    await openai.received(1);
    client.abort();
    await expect(response).rejects.toThrow();
    await openai.closed(0);
    await until(
      () => app.events('client_gone').length,
      (count) => count === before + 1,
    );
    expect(app.events('answer_passed').slice(logged)).toMatchObject([
      { status: null, end: 'failed', provider: 'openai', attempts: 1 },
    ]);
    expect(openai.openConnections).toBe(0);
  });
});
