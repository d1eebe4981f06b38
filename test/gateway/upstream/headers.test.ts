import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../../support/app.ts';
import { addKey, openAiKey } from '../../support/key.ts';
import { createUser } from '../../support/stack.ts';
import { startUpstream, type Upstream } from '../../support/upstream.ts';

const hello = { messages: [{ role: 'user', content: 'Hello' }] };

let upstream: Upstream;
let app: TestApp;

beforeAll(async () => {
  upstream = await startUpstream();
  app = await startApp({
    env: {
      UPSTREAM_OPENAI_URL: upstream.url,
      DEFAULT_LLM_PROVIDER: 'openrouter',
      DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
      DEFAULT_LLM_BASE_URL: upstream.url,
      DEFAULT_LLM_MODEL: 'vendor/default-model',
    },
  });
});
afterAll(async () => {
  await app.stop();
  await upstream.stop();
});

/** The `idempotency-key` that the upstream receives. */
async function receivedKey(session: string, value: string, model?: string): Promise<string> {
  const { length } = upstream.requests;
  const headers = { 'idempotency-key': value };
  const json = model === undefined ? hello : { ...hello, model };
  await app.call('/v1/chat/completions', { method: 'POST', session, json, headers });
  return String((await upstream.received(length + 1)).headers['idempotency-key']);
}

it('masks an idempotency key per user on the system key and forwards it unchanged with a personal key', async () => {
  const one = await app.signIn(await createUser({ tier: 'starter' }));
  const other = await app.signIn(await createUser());
  const first = await receivedKey(one, 'retry-1');
  expect(first).toMatch(/^[0-9a-f]{64}$/);
  expect(await receivedKey(one, 'retry-1')).toBe(first);
  expect(await receivedKey(one, 'retry-2')).not.toBe(first);
  expect(await receivedKey(other, 'retry-1')).not.toBe(first);
  // A mask sent by another user is masked again.
  expect(await receivedKey(other, first)).not.toBe(first);
  await addKey(app, one, { provider: 'openai', key: openAiKey() });
  expect(await receivedKey(one, 'retry-1', 'openai/gpt-4o')).toBe('retry-1');
});
