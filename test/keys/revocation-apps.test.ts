import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { OWNERS_CHANNEL } from '../../src/keys/key-reader.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser, type TestUser } from '../support/stack.ts';
import { startUpstream, type Upstream } from '../support/upstream.ts';
import { until } from '../support/until.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';

/** What is remembered grows old by itself in twice this time: what is obeyed within it was heard of. */
const LIMIT_MS = 5_000;
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

/** The other process has heard of what was done. */
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

// How soon is measured by the benchmark (npm run bench).
describe('two processes on one database', () => {
  it(
    'agree that a key is deleted, before anything remembered grows old',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const keyId = await addOne();
        await until(async () => (await chat(two)) === 200);
        await remove(keyId);
        await untilRefused(two);
      }
    },
    10_000 + ROUNDS * 3_000,
  );

  it('agree also when the connections on which they hear of one another are cut, and say so once', async () => {
    const keyId = await addOne();
    await until(async () => (await chat(two)) === 200);
    await cutListeners();
    await remove(keyId);
    await untilRefused(two);
    const said = (words: string) =>
      two
        .logs()
        .split('\n')
        .filter((line) => line.includes(`"${OWNERS_CHANNEL}"`) && line.includes(words));
    await until(() => said('notices of other processes are heard again').length > 0);
    expect(said('notices of other processes are not heard')).toHaveLength(1);
  });
});

describe('an administrator is obeyed by both, before anything remembered grows old', () => {
  /** Both send the key upstream, then somebody edits what is stored. */
  async function afterEdit(edit: (value: string) => string[]): Promise<void> {
    const keyId = await addOne();
    const apps = [one, two];
    await until(async () => (await Promise.all(apps.map(chat))).every((status) => status === 200));
    const values = (await readVaultRecord(user)).attributes['byok_openai'] ?? [];
    const value = values.find((each) => each.includes(keyId)) ?? '';
    await editVaultRecord(user, { byok_openai: edit(value) });
    await Promise.all(apps.map(untilRefused));
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
