import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { z } from 'zod';
import { startApp, type TestApp } from '../support/app.ts';
import { addKey, openAiKey } from '../support/key.ts';
import { createUser } from '../support/stack.ts';

let app: TestApp;

beforeAll(async () => {
  app = await startApp();
});

afterAll(() => app.stop());

const Page = z.strictObject({
  data: z.array(
    z.strictObject({
      time: z.iso.datetime(),
      actor: z.string(),
      action: z.string(),
      object: z.string(),
      request_id: z.string(),
      count: z.number(),
    }),
  ),
  next_cursor: z.string().nullable(),
});

async function readAuditPage(session: string, query = '') {
  const answer = await app.call(`/api/v1/audit${query}`, { session });
  expect(answer.status).toBe(200);
  return Page.parse(await answer.json());
}

async function signInUser(tier: 'free' | 'starter' = 'starter') {
  const user = await createUser({ tier });
  return { id: user.id, session: await app.signIn(user) };
}

const addOpenAiKey = (session: string) => addKey(app, session, { provider: 'openai', key: openAiKey() });

describe('the audit trail', () => {
  it('starts with the sign-in', async () => {
    const { id, session } = await signInUser();
    const { data } = await readAuditPage(session);
    expect(data).toEqual([
      {
        time: expect.any(String),
        actor: `user:${id}`,
        action: 'session.started',
        object: 'session',
        request_id: expect.stringMatching(/./),
        count: 1,
      },
    ]);
  });

  it('contains every change of a key, newest first, with the request id of the change', async () => {
    const { session } = await signInUser();
    const keyId = await addOpenAiKey(session);
    const path = `/api/v1/byok/keys/openai/${keyId}`;
    const changed = await app.call(path, { method: 'PATCH', session, json: { enabled: false } });
    await app.call(`/api/v1/byok/keys/openai?key_id=${keyId}`, { method: 'DELETE', session });
    const { data } = await readAuditPage(session);
    expect(data.map(({ action, object }) => [action, object])).toEqual([
      ['key.deleted', `key:openai/${keyId}`],
      ['key.updated', `key:openai/${keyId}`],
      ['key.added', `key:openai/${keyId}`],
      ['session.started', 'session'],
    ]);
    expect(data[1]?.request_id).toBe(changed.headers.get('x-request-id'));
  });

  it('contains a refusal by tier with the refused route', async () => {
    const { id, session } = await signInUser('free');
    const json = { provider: 'openai', key: openAiKey() };
    const refused = await app.call('/api/v1/byok/keys/add', { method: 'POST', session, json });
    expect(refused.status).toBe(403);
    const [newest] = (await readAuditPage(session)).data;
    expect(newest).toMatchObject({
      actor: `user:${id}`,
      action: 'tier.refused',
      object: 'route:POST /api/v1/byok/keys/add',
      request_id: refused.headers.get('x-request-id'),
    });
  });

  it('contains repeated refusals of a route once, after a stop with their number', async () => {
    await using running = await startApp();
    const user = await createUser({ tier: 'free' });
    const session = await running.signIn(user);
    const refuse = () => running.call('/api/v1/byok/keys/add', { method: 'POST', session, json: {} });
    const responses = await Promise.all(Array.from({ length: 40 }, refuse));
    expect(new Set(responses.map(({ status }) => status))).toEqual(new Set([403]));
    await running.stop();
    await using next = await startApp({ shared: running });
    const answer = await next.call('/api/v1/audit', { session: await next.signIn(user) });
    const { data } = Page.parse(await answer.json());
    expect(data.filter(({ action }) => action === 'tier.refused').map(({ count }) => count)).toEqual([40]);
  });

  it('is paginated without gaps or repeated events', async () => {
    const { session } = await signInUser();
    for (let count = 0; count < 4; count += 1) await addOpenAiKey(session);
    const all = await readAuditPage(session);
    expect(all).toMatchObject({ data: { length: 5 }, next_cursor: null });
    const paged = [];
    let query = '?limit=2';
    for (let pages = 1; ; pages += 1) {
      const { data, next_cursor } = await readAuditPage(session, query);
      paged.push(...data);
      if (next_cursor === null) {
        expect(pages).toBe(3);
        break;
      }
      query = `?limit=2&cursor=${next_cursor}`;
    }
    expect(paged).toEqual(all.data);
  });

  it('is filtered by action, object and day, also in pages', async () => {
    const { session, id } = await signInUser();
    const keyId = await addOpenAiKey(session);
    await addOpenAiKey(session);
    await app.call(`/api/v1/byok/keys/openai?key_id=${keyId}`, { method: 'DELETE', session });
    const database = new pg.Client({ connectionString: app.ownerDatabaseUrl });
    await database.connect();
    try {
      // The edges of 3 May in UTC: its first and last microsecond, and the ones beside them.
      const times = ['05-02 23:59:59.999999', '05-03 00:00', '05-03 23:59:59.999999', '05-04 00:00'];
      for (const time of times)
        await database.query(
          `INSERT INTO audit_events (owner, actor, action, object, request_id, time)
           VALUES ($1, $1, 'key.tested', $2, 'req_test', $3::timestamptz)`,
          [`user:${id}`, `at ${time}`, `2026-${time}+00`],
        );
    } finally {
      await database.end();
    }
    const list = async (query: string) =>
      (await readAuditPage(session, `?${query}`)).data.map(({ action, object }) => `${action} ${object}`);
    const object = `key:openai/${keyId}`;
    expect(await list(`object=${object}`)).toEqual([`key.deleted ${object}`, `key.added ${object}`]);
    expect(await list(`object=${object}&action=key.added`)).toEqual([`key.added ${object}`]);
    expect(await list(`object=key:openai/`)).toEqual([]);
    const day = ['key.tested at 05-03 23:59:59.999999', 'key.tested at 05-03 00:00'];
    expect(await list('from=2026-05-03&to=2026-05-03')).toEqual(day);
    expect(await list('to=2026-05-03')).toEqual([...day, 'key.tested at 05-02 23:59:59.999999']);
    expect(await list('from=2026-05-04&action=key.tested')).toEqual(['key.tested at 05-04 00:00']);
    const { data, next_cursor: cursor } = await readAuditPage(session, '?action=key.added&limit=1');
    expect(data).toMatchObject([{ action: 'key.added' }]);
    expect(await list(`action=key.added&limit=1&cursor=${cursor}`)).toEqual([`key.added ${object}`]);
  });

  it("contains only the user's own events, for any cursor", async () => {
    const [one, other] = [await signInUser(), await signInUser()];
    await addOpenAiKey(one.session);
    const { data } = await readAuditPage(other.session, '?cursor=999999999999');
    expect(data.map(({ actor }) => actor)).toEqual([`user:${other.id}`]);
  });

  it.each([
    ...[
      '?cursor=x',
      '?cursor=-1',
      '?limit=0',
      '?limit=201',
      '?owner=user:x',
      '?action=key.eaten',
      '?object=',
    ],
    ...['?object=%00', '?from=2026-02-30', '?to=today', '?from=2026-02-02&to=2026-02-01'],
  ])('refuses %s', async (query) => {
    const { session } = await signInUser();
    const answer = await app.call(`/api/v1/audit${query}`, { session });
    expect(answer.status).toBe(400);
  });
});
