import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import type { KeyView } from '../../src/keys/schema.ts';
import type { ServerView } from '../../src/servers/schema.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { openAiKey } from '../support/key.ts';
import { createSshServerConfig, SERVERS } from '../support/servers.ts';
import { createUser } from '../support/stack.ts';
import { bearer, createToken } from '../support/token.ts';

/** Two processes on one database. */
let apps: [TestApp, TestApp];
let owner: pg.Client;

beforeAll(async () => {
  const first = await startApp();
  apps = [first, await startApp({ shared: first })];
  owner = new pg.Client({ connectionString: first.ownerDatabaseUrl });
  await owner.connect();
});
afterAll(async () => {
  await owner.end();
  await Promise.all(apps.map((app) => app.stop()));
});

const KEYS = '/api/v1/byok/keys';
const TOKENS = '/api/v1/tokens';
let count = 0;

/** A new user with a key of the header, and calls to both processes. */
async function createTestUser() {
  const user = await createUser({ tier: 'starter' });
  const sessions = [await apps[0].signIn(user), await apps[1].signIn(user)] as const;
  count += 1;
  const idempotencyKey = `request-${count}`;
  const call = (
    at: number,
    method: string,
    path: string,
    json?: object,
    key: string | null = idempotencyKey,
  ) =>
    (at % 2 === 0 ? apps[0] : apps[1]).call(path, {
      ...{ method, session: at % 2 === 0 ? sessions[0] : sessions[1] },
      ...(json === undefined ? {} : { json }),
      ...(key === null ? {} : { headers: { 'idempotency-key': key } }),
    });
  return {
    user,
    call,
    create: (path: string, json: object, at = 0) => call(at, 'POST', path, json),
    list: async (path: string) => (await (await call(1, 'GET', path)).json()) as { id: string }[],
    /** Changes the row of the user's only request. */
    change: (set: string) =>
      owner.query(`UPDATE idempotency_keys SET ${set} WHERE owner = $1`, [`user:${user.id}`]),
    rows: async () =>
      (await owner.query('SELECT * FROM idempotency_keys WHERE owner = $1', [`user:${user.id}`]))
        .rows as Record<string, unknown>[],
  };
}

const problemOf = async (response: { json(): Promise<unknown> }) =>
  (await response.json()) as { status: number; code: string; id?: string };
const createServer = (name = 'A server') => ({
  ...{ name, server_type: 'ssh' },
  connection_config: createSshServerConfig(),
});
const createKey = (label = 'Work') => ({ provider: 'openai', key: openAiKey(), label });

describe('a repeated request with the same Idempotency-Key', () => {
  it('is answered as the first one, by another process too, and creates nothing', async () => {
    const ada = await createTestUser();
    const json = createServer();
    const first = await ada.create(SERVERS, json);
    const server = (await first.json()) as ServerView;
    expect([first.status, first.headers.get('idempotent-replayed')]).toEqual([201, null]);
    await ada.call(0, 'PUT', `${SERVERS}/${server.id}`, { name: 'Changed' });
    const again = await ada.create(SERVERS, json, 1);
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([201, 'true']);
    for (const name of ['location', 'etag'])
      expect(again.headers.get(name)).toBe(first.headers.get(name) ?? '?');
    expect(await again.json()).toEqual(server);
    expect(await ada.list(SERVERS)).toHaveLength(1);
    expect((await ada.call(0, 'POST', SERVERS, json, 'another')).status).toBe(201);
    expect(await ada.list(SERVERS)).toHaveLength(2);
  });

  it('returns a stored key as it was added', async () => {
    const ada = await createTestUser();
    const json = createKey();
    const first = await (await ada.create(`${KEYS}/add`, json)).json();
    const again = await ada.create(`${KEYS}/add`, json, 1);
    expect([again.status, await again.json()]).toEqual([201, first]);
    expect(again.headers.get('etag')).toMatch(/^"[0-9a-f]{16}"$/);
    expect(await ada.list(KEYS)).toHaveLength(1);
  });

  it('is a 409 with the id of a token, whose text is not stored', async () => {
    const ada = await createTestUser();
    const json = { name: 'laptop', scopes: ['chat'] };
    const { id } = (await (await ada.create(TOKENS, json)).json()) as { id: string };
    const again = await problemOf(await ada.create(TOKENS, json, 1));
    expect(again).toMatchObject({ status: 409, code: 'already_created', id });
    expect(await ada.list(TOKENS)).toMatchObject([{ id }]);
    expect(await ada.rows()).toMatchObject([{ answer: null, created: true }]);
  });

  it('is refused with another body', async () => {
    const ada = await createTestUser();
    await ada.create(SERVERS, createServer());
    const refused = await problemOf(await ada.create(SERVERS, createServer('Another'), 1));
    expect(refused).toMatchObject({ status: 422, code: 'idempotency_key_reused' });
    expect(await ada.list(SERVERS)).toHaveLength(1);
  });

  it('runs again after a refusal', async () => {
    const ada = await createTestUser();
    const json = createKey();
    const blocking = await ada.call(0, 'POST', `${KEYS}/add`, json, null);
    const { key } = (await blocking.json()) as { key: KeyView };
    expect(await problemOf(await ada.create(`${KEYS}/add`, json))).toMatchObject({ code: 'duplicate_key' });
    await ada.call(0, 'DELETE', `${KEYS}/openai?key_id=${key.id}`);
    expect((await ada.create(`${KEYS}/add`, json, 1)).status).toBe(201);
  });

  it('creates one object when both processes receive it at the same time', async () => {
    const ada = await createTestUser();
    for (const [path, json] of [
      [SERVERS, createServer()],
      [TOKENS, { name: 'laptop', scopes: ['chat'] }],
      [`${KEYS}/add`, createKey()],
    ] as const) {
      const answers = await Promise.all(Array.from({ length: 10 }, (_, at) => ada.create(path, json, at)));
      const first = answers.filter(
        ({ status, headers }) => status === 201 && headers.get('idempotent-replayed') === null,
      );
      expect(first).toHaveLength(1);
      for (const answer of answers.filter(({ status }) => status !== 201)) {
        const { code } = await problemOf(answer);
        expect(['request_in_progress', 'already_created']).toContain(code);
        if (code === 'request_in_progress') expect(answer.headers.get('retry-after')).toBe('2');
      }
      expect(await ada.list(path === `${KEYS}/add` ? KEYS : path)).toHaveLength(1);
    }
  });

  it('is another request for another user, another token and another path', async () => {
    const [ada, bob] = [await createTestUser(), await createTestUser()];
    const json = createServer();
    const [session, key] = [await apps[0].signIn(ada.user), 'shared'];
    expect((await ada.call(0, 'POST', SERVERS, json, key)).status).toBe(201);
    const others = await bob.call(0, 'POST', SERVERS, json, key);
    expect([others.status, others.headers.get('idempotent-replayed')]).toEqual([201, null]);
    const { token } = await createToken(apps[0], session, { scopes: ['keys:write', 'keys:read'] });
    const keyJson = createKey();
    expect((await ada.call(0, 'POST', `${KEYS}/add`, keyJson, key)).status).toBe(201);
    const headers = { ...bearer(token), 'idempotency-key': key };
    const byToken = await apps[0].call(`${KEYS}/add`, { method: 'POST', headers, json: keyJson });
    expect(await problemOf(byToken)).toMatchObject({ code: 'duplicate_key' });
  });

  it.each(['', 'a b', 'x'.repeat(256), 'é'])('is refused with the invalid key %j', async (key) => {
    const ada = await createTestUser();
    const refused = await ada.call(0, 'POST', SERVERS, createServer(), key);
    expect(await problemOf(refused)).toMatchObject({ status: 400, code: 'validation_failed' });
    expect(await ada.list(SERVERS)).toEqual([]);
  });
});

describe('after a process was killed', () => {
  /** The state of a request whose process was killed; its lease has ended. */
  const KILLED = "answer = NULL, lease_until = now() - interval '1 second'";

  it('while it held the request, a repeat waits for the end of the lease', async () => {
    const ada = await createTestUser();
    const json = createServer();
    await ada.create(SERVERS, json);
    await ada.change("answer = NULL, lease_until = now() + interval '1 hour'");
    const refused = await ada.create(SERVERS, json, 1);
    expect(refused.headers.get('retry-after')).toBe('2');
    expect(await problemOf(refused)).toMatchObject({ status: 409, code: 'request_in_progress' });
  });

  it.each([
    [SERVERS, SERVERS, createServer],
    [TOKENS, TOKENS, () => ({ name: 'laptop', scopes: ['chat'] })],
    [`${KEYS}/add`, KEYS, createKey],
  ])('between the commit of %s and its answer, a repeat names the object', async (path, list, createJson) => {
    const ada = await createTestUser();
    const json = createJson();
    // The outcome of the request cannot be stored, as if its process had been killed before.
    await owner.query(`
      CREATE FUNCTION refuse_answers() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$;
      CREATE TRIGGER refuse_answers BEFORE UPDATE OF answer ON idempotency_keys
        FOR EACH ROW EXECUTE FUNCTION refuse_answers()`);
    try {
      expect((await ada.create(path, json)).status).toBe(201);
    } finally {
      await owner.query('DROP FUNCTION refuse_answers() CASCADE');
    }
    const [object] = await ada.list(list);
    expect(await ada.rows()).toMatchObject([{ created: true, answer: null, object_id: object?.id }]);
    await ada.change(KILLED);
    const again = await problemOf(await ada.create(path, json, 1));
    expect(again).toMatchObject({ status: 409, code: 'already_created', id: object?.id });
    // Also when it was deleted meanwhile.
    const remaining =
      path === `${KEYS}/add` ? `${KEYS}/openai?key_id=${object?.id}` : `${list}/${object?.id}`;
    expect((await ada.call(0, 'DELETE', remaining)).status).toBe(200);
    expect(await problemOf(await ada.create(path, json))).toMatchObject({ code: 'already_created' });
    expect(await ada.list(list)).toEqual([]);
  });

  it('a run is marked in the transaction that stores it, and for its owner only', async () => {
    const [ada, eve] = [await createTestUser(), await createTestUser()];
    for (const { user } of [ada, eve])
      await owner.query(
        `INSERT INTO idempotency_keys (owner, route, key_mac, input_mac, object_id, lease_until)
         VALUES ($1, 'r', 'k', 'i', 'run_marked', now())`,
        [`user:${user.id}`],
      );
    await owner.query(
      `INSERT INTO runs (id, owner, server_id, server_name, server_type, server_versions, sealed, status, holder,
                         lease_until, finished_at, code_sha256, cause, cleanup)
       VALUES ('run_marked', $1, 's', 's', 'ssh', '[]', 'x', 'finished', 'i', now(), now(), repeat('0', 64), 'exited',
               'verified')`,
      [`user:${ada.user.id}`],
    );
    expect([await ada.rows(), await eve.rows()]).toMatchObject([[{ created: true }], [{ created: false }]]);
  });

  it('between the write of a key and its end, a repeat adds no second key', async () => {
    const ada = await createTestUser();
    const json = createKey();
    const { key } = (await (await ada.create(`${KEYS}/add`, json)).json()) as { key: KeyView };
    await ada.change(`${KILLED}, created = false`);
    const again = await ada.create(`${KEYS}/add`, json, 1);
    expect([again.status, ((await again.json()) as { key: KeyView }).key.id]).toEqual([201, key.id]);
    expect(await ada.list(KEYS)).toMatchObject([{ id: key.id, label: 'Work' }]);
  });

  it('between the write of a key and its end, a repeat does not add a key that was deleted', async () => {
    const ada = await createTestUser();
    const json = createKey();
    const { key } = (await (await ada.create(`${KEYS}/add`, json)).json()) as { key: KeyView };
    await ada.change(`${KILLED}, created = false`);
    await ada.call(0, 'DELETE', `${KEYS}/openai?key_id=${key.id}`);
    expect(await problemOf(await ada.create(`${KEYS}/add`, json, 1))).toMatchObject({
      code: 'already_created',
      id: key.id,
    });
    expect(await ada.list(KEYS)).toEqual([]);
  });
});

describe('what is stored of a request', () => {
  it('is encrypted, holds no secret, and counts for 24 hours', async () => {
    const ada = await createTestUser();
    const json = createServer('Name in the answer');
    await ada.create(SERVERS, json);
    const [row] = await ada.rows();
    expect(row).toMatchObject({ answer: expect.stringMatching(/^gAAAA/), created: true });
    expect(JSON.stringify(row)).not.toMatch(/request-|Name in the answer|dev\.example/);
    await ada.change("time = now() - interval '23 hours 59 minutes'");
    await owner.query('SELECT prune_idempotency_keys()');
    expect((await ada.create(SERVERS, json)).headers.get('idempotent-replayed')).toBe('true');
    await ada.change("time = now() - interval '24 hours 1 minute'");
    expect((await ada.create(SERVERS, json)).headers.get('idempotent-replayed')).toBeNull();
    expect(await ada.list(SERVERS)).toHaveLength(2);
    await ada.change("time = now() - interval '24 hours 1 minute'");
    await owner.query('SELECT prune_idempotency_keys()');
    expect(await ada.rows()).toEqual([]);
  });

  it('is not used where it belongs to another request', async () => {
    const [ada, eve] = [await createTestUser(), await createTestUser()];
    const json = createServer();
    await ada.create(SERVERS, json);
    await eve.create(SERVERS, json);
    const [row] = await ada.rows();
    await eve.change(`answer = '${String(row?.['answer'])}'`);
    expect(await problemOf(await eve.create(SERVERS, json))).toMatchObject({ code: 'already_created' });
  });
});
