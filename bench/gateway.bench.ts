import { afterAll, beforeAll, it } from '@jest/globals';
import { startApp, type TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { createUser } from '../test/support/stack.ts';
import { answer, fault, startUpstream, type Answer, type Upstream } from '../test/support/upstream.ts';
import { printTimes } from './table.ts';

const ROUNDS = 100;
const hello = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };

let openai: Upstream;
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

/** From the client's leaving to the end of the upstream's connection. */
async function cancelMs(trouble: Answer, stream: boolean, untilAnswered: boolean): Promise<number> {
  openai.reset();
  openai.reply(trouble);
  const leaving = new AbortController();
  const response = app.call('/v1/chat/completions', {
    method: 'POST',
    session,
    json: { ...hello, stream },
    signal: leaving.signal,
  });
  response.catch(() => undefined);
  await openai.received(1);
  if (untilAnswered) await (await response).body?.getReader().read();
  const leftAtMs = performance.now();
  leaving.abort();
  return (await openai.closed(0)) - leftAtMs;
}

async function repeat(measure: () => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) times.push(await measure());
  return times;
}

it('measures how soon an upstream is left when the client has gone', async () => {
  printTimes('client gone -> upstream closed', {
    'waiting for the first byte': await repeat(() => cancelMs(fault.silent(), true, false)),
    'in the middle of a stream': await repeat(() =>
      cancelMs(answer.endlessStream({ everyMs: 5 }), true, true),
    ),
    'in a stream that has fallen silent': await repeat(() =>
      cancelMs(answer.held(1, new Promise(() => undefined)), true, true),
    ),
    'in the middle of an answer that is not streamed': await repeat(() =>
      cancelMs(fault.slowBody(), false, false),
    ),
  });
});

it('measures what the gateway adds to a small request', async () => {
  openai.reset();
  const timed = (send: () => Promise<{ text(): Promise<string> }>) => async () => {
    const startedAtMs = performance.now();
    await (await send()).text();
    return performance.now() - startedAtMs;
  };
  const body = JSON.stringify(hello);
  const headers = { 'content-type': 'application/json', authorization: 'Bearer sk-direct' };
  const direct = timed(() => fetch(`${openai.url}/chat/completions`, { method: 'POST', body, headers }));
  const through = timed(() => app.call('/v1/chat/completions', { method: 'POST', session, json: hello }));
  await repeat(through);
  printTimes('a small request, answered at once', {
    'directly to the upstream': await repeat(direct),
    'through the gateway': await repeat(through),
  });
});
