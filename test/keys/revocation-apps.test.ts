import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser, type TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';

/** Half of the cache's maximum age: a change that takes effect within this time was notified. */
const LIMIT_MS = 5_000;
const ROUNDS = Number(process.env['OPS_TEST_ROUNDS'] ?? 20);

let upstream: Upstream;
/** Two processes of the app on one database. */
let one: TestApp;
let two: TestApp;
let user: TestUser;
let session: string;

beforeAll(async () => {
  upstream = await startUpstream();
  const env = { UPSTREAM_OPENAI_URL: upstream.url };
  one = await startApp({ env });
  two = await startApp({ env, shared: one });
  user = await createUser({ tier: 'starter' });
  session = await one.signIn(user);
}, 60_000);
afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await upstream.stop();
});

/** Sends a chat and returns its status. */
async function chat(app: TestApp): Promise<number> {
  const json = { model: 'openai/gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
  const response = await app.call('/v1/chat/completions', { method: 'POST', session, json });
  await response.text();
  return response.status;
}

const addOpenAiKey = () => addKey(one, session, { provider: 'openai', key: openAiKey() });

async function remove(keyId: string): Promise<void> {
  const path = `/api/v1/byok/keys/openai?key_id=${keyId}`;
  expect((await one.call(path, { method: 'DELETE', session })).status).toBe(200);
}

/** Waits until the process refuses chats. */
const untilRefused = (app: TestApp) =>
  until(
    () => chat(app),
    (status) => status !== 200,
    LIMIT_MS,
  );

async function cutListeners(): Promise<void> {
  const client = new pg.Client({ connectionString: one.databaseUrl });
  await client.connect();
  await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'ops-center-listen'`,
  );
  await client.end();
}

// The latency is measured by the benchmark (npm run bench).
describe('two processes on one database', () => {
  it(
    'both refuse a deleted key before the cache expires',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const keyId = await addOpenAiKey();
        await until(async () => (await chat(two)) === 200);
        await remove(keyId);
        await untilRefused(two);
      }
    },
    10_000 + ROUNDS * 3_000,
  );

  it('both refuse a deleted key when their LISTEN connections are cut, and log the loss once', async () => {
    const keyId = await addOpenAiKey();
    await until(async () => (await chat(two)) === 200);
    await cutListeners();
    await remove(keyId);
    await untilRefused(two);
    const linesWith = (text: string) =>
      two
        .logs()
        .split('\n')
        .filter((line) => line.includes(text));
    await until(() => linesWith('LISTEN connection recovered').length > 0);
    expect(linesWith('LISTEN connection lost')).toHaveLength(1);
  });
});

describe('a change by an administrator takes effect in both before the cache expires', () => {
  /** Both use the key, then an administrator edits the stored value. Resolves when both refuse chats. */
  async function afterEdit(edit: (value: string) => string[]): Promise<void> {
    const keyId = await addOpenAiKey();
    const apps = [one, two];
    await until(async () => (await Promise.all(apps.map(chat))).every((status) => status === 200));
    const values = (await readVaultRecord(user)).attributes['byok_openai'] ?? [];
    const value = values.find((each) => each.includes(keyId)) ?? '';
    await editVaultRecord(user, { byok_openai: edit(value) });
    await Promise.all(apps.map(untilRefused));
  }

  it('when a key is disabled', async () => {
    await afterEdit((value) => [value.replace('"enabled":true', '"enabled":false')]);
    expect([await chat(one), await chat(two)]).toEqual([424, 424]);
    await one.call('/api/v1/byok/keys/openai', { method: 'DELETE', session });
  });

  it('when a key is removed', async () => {
    await afterEdit(() => []);
    expect([await chat(one), await chat(two)]).toEqual([503, 503]);
  });
});
