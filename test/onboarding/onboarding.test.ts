import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import type { Principal } from '../../src/http/principal.ts';
import { keycloakUnavailable } from '../../src/lib/errors.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createOnboarding } from '../../src/onboarding/service.ts';
import { startGateway, type Gateway } from '../support/gateway.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createServerClientFor, createSshServerConfig } from '../support/servers.ts';
import { adminClient, createUser, type TestUser } from '../support/stack.ts';
import { until } from '../support/until.ts';

let gateway: Gateway;
let database: Database;

beforeAll(async () => {
  gateway = await startGateway(() => ({
    DEFAULT_LLM_PROVIDER: 'openrouter',
    DEFAULT_LLM_API_KEY: 'sk-or-the-system-default-key',
    DEFAULT_LLM_MODEL: 'vendor/default-model',
  }));
  const log = createLog('silent');
  database = createDatabase({ url: gateway.app.databaseUrl, max: 2, applicationName: 'test', log });
});
afterAll(async () => {
  await database.close();
  await gateway.stop();
});
afterEach(() => {
  gateway.reset();
});

const PATH = '/api/v1/onboarding';
const get = async (session: string) => {
  const response = await gateway.app.call(PATH, { session });
  expect(response.status).toBe(200);
  return (await response.json()) as Record<string, unknown>;
};
const put = (session: string, json: unknown) => gateway.app.call(PATH, { method: 'PUT', session, json });
const signIn = (user: TestUser) => gateway.app.signIn(user);
const countRows = (user: TestUser) =>
  database.withOwner(`user:${user.id}`, (sql) => sql.run('SELECT FROM onboarding'));

describe('the introduction of a user', () => {
  it('begins at first sight with step 1, and is the same on any device', async () => {
    const user = await createUser({ tier: 'starter' });
    const [laptop, phone] = [await signIn(user), await signIn(user)];
    const first = await get(laptop);
    expect(first).toEqual({
      ...{ current_step: 1, progress: 0, completed_at: null },
      started_at: expect.stringMatching(/^\d{4}-.*Z$/),
    });
    const changed = await put(laptop, { current_step: 2 });
    expect([changed.status, await changed.json()]).toEqual([200, { ...first, current_step: 2 }]);
    expect(await get(phone)).toEqual({ ...first, current_step: 2 });
    expect(await countRows(user)).toBe(1);
  });

  it('is completed once by finishing or skipping, and can be opened again', async () => {
    const session = await signIn(await createUser({ tier: 'free' }));
    const completed = (await (await put(session, { completed: true })).json()) as Record<string, unknown>;
    expect(completed).toMatchObject({ current_step: 1, completed_at: expect.stringMatching(/Z$/) });
    const again = await put(session, { completed: true, current_step: 3 });
    expect(await again.json()).toEqual({ ...completed, current_step: 3 });
    expect(await (await put(session, {})).json()).toEqual({ ...completed, current_step: 3 });
    expect(await (await put(session, { completed: false })).json()).toMatchObject({
      ...{ current_step: 3, completed_at: null },
    });
  });

  it.each([
    ['current_step', { current_step: 0 }],
    ['current_step', { current_step: 4 }],
    ['current_step', { current_step: 1.5 }],
    ['current_step', { current_step: null }],
    ['completed', { completed: 'yes' }],
    ['progress', { progress: 100 }],
  ])('refuses a wrong %s: %j', async (member, json) => {
    const refused = await put(await signIn(await createUser({ tier: 'free' })), json);
    expect([refused.status, JSON.stringify(await refused.json())]).toEqual([
      400,
      expect.stringContaining(member),
    ]);
  });

  it('belongs to that user alone', async () => {
    const [user, other] = [await createUser({ tier: 'free' }), await createUser({ tier: 'free' })];
    await put(await signIn(user), { current_step: 3 });
    expect(await get(await signIn(other))).toMatchObject({ current_step: 1 });
    const rows = await database.withOwner(`user:${other.id}`, (sql) =>
      sql.run('UPDATE onboarding SET current_step = 2'),
    );
    expect(rows).toBe(1);
    expect(await get(await signIn(user))).toMatchObject({ current_step: 3 });
  });

  it('is deleted with the user', async () => {
    const user = await createUser({ tier: 'free' });
    await get(await signIn(user));
    expect(await countRows(user)).toBe(1);
    await (await adminClient()).users.del({ id: user.id });
    await until(
      () => countRows(user),
      (count) => count === 0,
    );
  });
});

describe('the progress', () => {
  it('is computed from keys, servers and runs as they are now', async () => {
    const { app } = gateway;
    const user = await createUser({ tier: 'starter' });
    const session = await signIn(user);
    const progress = async () => (await get(session))['progress'];
    expect(await progress()).toBe(0);
    await addKey(app, session, { provider: 'openai', key: openAiKey() });
    expect(await progress()).toBe(33);
    const client = createServerClientFor(app, user, session);
    const { id } = await client.add({ connection_config: createSshServerConfig() });
    expect(await progress()).toBe(67);
    await database.withOwner(`user:${user.id}`, (sql) =>
      sql.run(
        `INSERT INTO runs (id, owner, server_id, server_name, server_type, server_versions, code_sha256, sealed,
           status, holder, lease_until, finished_at, cause, cleanup)
         VALUES ($1, $2, $3, 'A', 'ssh', '[1]', repeat('0', 64), 'x', 'finished', 'one', now(), now(), 'exited', 'verified')`,
        [randomUUID(), `user:${user.id}`, id],
      ),
    );
    expect(await progress()).toBe(100);
    await client.remove(id);
    expect(await progress()).toBe(67);
  });

  it('reaches 100 below Starter with a first request, which the system pays', async () => {
    const session = await signIn(await createUser({ tier: 'free' }));
    expect(await get(session)).toMatchObject({ progress: 0 });
    const json = { model: 'vendor/default-model', messages: [{ role: 'user', content: 'Hello' }] };
    const answer = await gateway.app.call('/v1/chat/completions', { method: 'POST', session, json });
    expect(answer.headers.get('x-ops-key-scope')).toBe('system');
    await answer.text();
    await until(
      () => get(session),
      ({ progress }) => progress === 100,
    );
  });

  it('is shown without what cannot be read while Keycloak is unavailable', async () => {
    const id = randomUUID();
    const principal: Principal = {
      user: { id, username: id, email: null, name: null, tier: 'starter' },
      ...{ credential: 'session', scopes: new Set(), token: null, sessionId: 'x', keycloakSessionId: null },
    };
    const cause = { keys: keycloakUnavailable(undefined) as Error };
    const onboarding = createOnboarding({
      database,
      keys: { listKeys: () => Promise.reject(cause.keys) },
      servers: { list: () => Promise.resolve([]) },
      runs: { list: () => Promise.resolve({ data: [{} as never], next_cursor: null }) },
      usage: { listRequests: () => Promise.reject(new Error('not called')) },
    });
    expect(await onboarding.get(principal)).toMatchObject({ progress: 33 });
    expect(await onboarding.update(principal, { current_step: 2 })).toMatchObject({ progress: 33 });
    cause.keys = new Error('a fault of the app');
    await expect(onboarding.get(principal)).rejects.toThrow('a fault of the app');
  });
});
