import { afterAll, beforeAll, it } from '@jest/globals';
import pg from 'pg';
import { startApp, type TestApp } from '../test/support/app.ts';
import { addKey, openAiKey } from '../test/support/key.ts';
import { adminClient, createUser, type TestUser } from '../test/support/stack.ts';
import { readEventStream } from '../test/support/stream.ts';
import { until } from '../test/support/until.ts';
import { answer, startUpstream, type Upstream } from '../test/support/upstream.ts';
import { editVaultRecord } from '../test/support/vault-record.ts';
import { printTimes } from './table.ts';

const ROUNDS = 100;
/** Changes by an administrator take effect at the next poll of events, which takes seconds. */
const SLOW_ROUNDS = 10;

let openai: Upstream;
/** Two app processes with one database. */
let one: TestApp;
let two: TestApp;

beforeAll(async () => {
  openai = await startUpstream();
  const env = { UPSTREAM_OPENAI_URL: openai.url };
  one = await startApp({ env });
  two = await startApp({ env, shared: one });
});
afterAll(async () => {
  await Promise.all([one.stop(), two.stop()]);
  await openai.stop();
});

const chat = (session: string, stream = false) => {
  const json = { model: 'openai/gpt-4o', stream, messages: [{ role: 'user', content: 'Hello' }] };
  return two.call('/v1/chat/completions', { method: 'POST', session, json });
};

async function chats(session: string): Promise<boolean> {
  const response = await chat(session);
  await response.text();
  return response.status === 200;
}

/** Adds a key, lets the other process cache it, and revokes it. @returns how long that process still used it. */
async function measureLagMs(session: string, revoke: (keyId: string) => Promise<unknown>): Promise<number> {
  const keyId = await addKey(one, session, { provider: 'openai', key: openAiKey() });
  await until(() => chats(session));
  await revoke(keyId);
  const revokedAtMs = performance.now();
  let servedAtMs = revokedAtMs;
  while (await chats(session)) servedAtMs = performance.now();
  return servedAtMs - revokedAtMs;
}

async function repeat(rounds: number, measure: () => Promise<number>): Promise<number[]> {
  const times: number[] = [];
  while (times.length < rounds) times.push(await measure());
  return times;
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

it('measures how long another process uses a revoked key (limit: 1 s; in the console 10 s)', async () => {
  const user = await createUser({ tier: 'starter' });
  const session = await one.signIn(user);
  const remove = (keyId: string) =>
    one.call(`/api/v1/byok/keys/openai?key_id=${keyId}`, { method: 'DELETE', session });
  printTimes('key revoked -> no longer used by another process', {
    deleted: await repeat(ROUNDS, () => measureLagMs(session, remove)),
    'deleted while the listening connections are cut': await repeat(ROUNDS, () =>
      measureLagMs(session, async (keyId) => {
        await cutListeners();
        await remove(keyId);
      }),
    ),
    'removed in the console': await repeat(SLOW_ROUNDS, () =>
      measureLagMs(session, () => editVaultRecord(user, { byok_openai: [] })),
    ),
  });
});

/** Time from a revocation to the end of the user's stream. */
async function measureEndMs(end: (user: TestUser) => Promise<unknown>): Promise<number> {
  const user = await createUser({ tier: 'starter' });
  const session = await one.signIn(user);
  await addKey(one, session, { provider: 'openai', key: openAiKey() });
  openai.reset();
  openai.answerAll(answer.endlessStream({ everyMs: 20 }));
  const stream = readEventStream(await chat(session, true));
  await stream.first;
  await end(user);
  const endedAtMs = performance.now();
  await stream.events;
  return performance.now() - endedAtMs;
}

it('measures how long a stream continues after its user was revoked (limit: 10 s)', async () => {
  const revocations: Record<string, (user: TestUser) => Promise<unknown>> = {
    'disabled in Keycloak': async ({ id }) => (await adminClient()).users.update({ id }, { enabled: false }),
    'deleted in Keycloak': async ({ id }) => (await adminClient()).users.del({ id }),
    'signed out in Keycloak': async ({ id }) => (await adminClient()).users.logout({ id }),
  };
  for (const [name, end] of Object.entries(revocations)) {
    const times = await repeat(SLOW_ROUNDS, () => measureEndMs(end));
    printTimes('user revoked -> stream ended', { [name]: times });
  }
});
