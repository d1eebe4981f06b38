import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser, type TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';

/** What is revoked over the API is refused everywhere within this time, */
const API_LIMIT_MS = 1_000;
/** and what an administrator changes in Keycloak's console within this. */
const CONSOLE_LIMIT_MS = 10_000;
const ROUNDS = Number(process.env['OPS_TEST_ROUNDS'] ?? 20);

let upstream: Upstream;
/** Two processes of the product on one database. */
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

/** Answers the status of a chat. */
async function chat(app: TestApp): Promise<number> {
  const json = { model: 'openai/gpt-4o', messages: [{ role: 'user', content: 'Hello' }] };
  const response = await app.call('/v1/chat/completions', { method: 'POST', session, json });
  await response.text();
  return response.status;
}

const addOne = () => addKey(one, session, { provider: 'openai', key: openAiKey() });

async function remove(keyId: string): Promise<void> {
  const path = `/api/v1/byok/keys/openai?key_id=${keyId}`;
  expect((await one.call(path, { method: 'DELETE', session })).status).toBe(200);
}

/** Deletes the key in one process; answers until when the other still sent it upstream, in ms after the answer. */
async function lagOfDelete(keyId: string): Promise<number> {
  await remove(keyId);
  const deletedAtMs = performance.now();
  for (let lagMs = 0; ; lagMs = performance.now() - deletedAtMs) {
    if ((await chat(two)) !== 200 || lagMs > 5 * API_LIMIT_MS) return lagMs;
  }
}

async function cutListeners(): Promise<void> {
  const client = new pg.Client({ connectionString: one.databaseUrl });
  await client.connect();
  await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'ops-center-listen'`,
  );
  await client.end();
}

describe('two processes on one database', () => {
  it(
    `agree within ${API_LIMIT_MS} ms that a key is deleted`,
    async () => {
      const lags: number[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const keyId = await addOne();
        await until(async () => (await chat(two)) === 200);
        lags.push(await lagOfDelete(keyId));
      }
      expect(Math.max(...lags)).toBeLessThan(API_LIMIT_MS);
    },
    10_000 + ROUNDS * 3_000,
  );

  it('agree also when the connections on which they hear of one another are cut, and say so once', async () => {
    const keyId = await addOne();
    await until(async () => (await chat(two)) === 200);
    await cutListeners();
    expect(await lagOfDelete(keyId)).toBeLessThan(API_LIMIT_MS);
    await until(() => two.logs().includes('are heard again'));
    expect(two.logs().match(/notices of other processes are not heard/g)).toHaveLength(1);
  });
});

describe(`an administrator is obeyed by both within ${CONSOLE_LIMIT_MS} ms`, () => {
  /** Both send the key upstream, then somebody edits what is stored. */
  async function afterEdit(edit: (value: string) => string[]): Promise<void> {
    const keyId = await addOne();
    const apps = [one, two];
    await until(async () => (await Promise.all(apps.map(chat))).every((status) => status === 200));
    const values = (await readVaultRecord(user)).attributes['byok_openai'] ?? [];
    const value = values.find((each) => each.includes(keyId)) ?? '';
    await editVaultRecord(user, { byok_openai: edit(value) });
    await Promise.all(
      apps.map((app) =>
        until(
          () => chat(app),
          (status) => status !== 200,
          CONSOLE_LIMIT_MS,
        ),
      ),
    );
  }

  it('who disables a key', async () => {
    await afterEdit((value) => [value.replace('"enabled":true', '"enabled":false')]);
    expect([await chat(one), await chat(two)]).toEqual([424, 424]);
    await one.call('/api/v1/byok/keys/openai', { method: 'DELETE', session });
  });

  it('who removes a key', async () => {
    await afterEdit(() => []);
    expect([await chat(one), await chat(two)]).toEqual([503, 503]);
  });
});
