import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { startApp, type TestApp } from '../support/app.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import {
  createSshServerConfig,
  createServerClientFor,
  createServerClient,
  type Problem,
} from '../support/servers.ts';
import { until } from '../support/until.ts';

/** Two processes on one database: a rule that one process enforces in its memory alone fails here. */
let apps: [TestApp, TestApp];
let direct: DirectServers;

beforeAll(async () => {
  const first = await startApp();
  apps = [first, await startApp({ shared: first })];
  direct = await openServers(first);
});
afterAll(async () => {
  await direct.close();
  await Promise.all(apps.map((app) => app.stop()));
});

/** One user, with calls to both processes in alternation. */
async function createTestUser() {
  const ada = await createServerClient(apps[0]);
  const both = [ada, createServerClientFor(apps[1], ada.user, await apps[1].signIn(ada.user))] as const;
  return { ada, by: (n: number) => both[n % 2 === 0 ? 0 : 1] };
}

describe('concurrent requests', () => {
  it('for 40 new servers of one user add 20', async () => {
    const { ada, by } = await createTestUser();
    const input = { name: 'x', server_type: 'ssh', connection_config: createSshServerConfig() };
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_each, n) => by(n).send('POST', '', input)),
    );
    const statuses = answers.map(({ status }) => status).sort();
    expect(statuses).toEqual([...Array<number>(20).fill(201), ...Array<number>(20).fill(409)]);
    const refused = (await answers.find(({ status }) => status === 409)?.json()) as Problem;
    expect(refused).toMatchObject({ code: 'server_limit', detail: expect.stringMatching(/20 servers/) });
    const servers = await ada.list();
    expect(servers).toHaveLength(20);
    expect(servers.filter(({ is_default }) => is_default)).toHaveLength(1);
  });

  it('that each set another default leave one default', async () => {
    const { ada, by } = await createTestUser();
    for (let n = 0; n < 20; n += 1)
      await ada.add({ name: `server ${n}`, connection_config: createSshServerConfig() });
    const ids = (await ada.list()).map(({ id }) => id);
    const answers = await Promise.all(ids.map((id, n) => by(n).send('PUT', `/${id}`, { is_default: true })));
    expect(answers.map(({ status }) => status)).toEqual(Array<number>(20).fill(200));
    expect((await ada.list()).filter(({ is_default }) => is_default)).toHaveLength(1);
    const rows = await direct.sql(
      'SELECT count(*)::int AS defaults FROM user_execution_servers WHERE user_id = $1 AND is_default',
      [ada.user.id],
    );
    expect(rows).toEqual([{ defaults: 1 }]);
  });

  it('with the same If-Match make one change', async () => {
    const { ada, by } = await createTestUser();
    const { id } = await ada.add({ connection_config: createSshServerConfig() });
    const header = { headers: { 'if-match': '"1"' } };
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_each, n) => by(n).send('PUT', `/${id}`, { name: `${n}` }, header)),
    );
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 412)).toHaveLength(19);
    expect((await ada.get(id)).version).toBe(2);
  });

  it('that make two servers connect through each other do not create a circle', async () => {
    const { ada, by } = await createTestUser();
    const [one, two] = [
      await ada.add({ connection_config: createSshServerConfig() }),
      await ada.add({ connection_config: createSshServerConfig() }),
    ];
    const ways = [
      [one.id, two.id],
      [two.id, one.id],
    ] as const;
    const answers = await Promise.all(
      ways.map(([id, jump], n) =>
        by(n).send('PUT', `/${id}`, { connection_config: createSshServerConfig({ jump }) }),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 400]);
  });
});

describe('a change that waits for another process', () => {
  it('delays only requests of its own user, however many changes wait', async () => {
    const { ada } = await createTestUser();
    const bob = await createServerClient(apps[0]);
    const lock = [`ops-center servers ${ada.user.id}`];
    await direct.sql('SELECT pg_advisory_lock(hashtextextended($1, 0))', lock);
    const input = { name: 'x', server_type: 'ssh', connection_config: createSshServerConfig() };
    const waiting = Array.from({ length: 40 }, () => ada.send('POST', '', input));
    const inDatabase = () =>
      direct.sql(
        `SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
         WHERE d.datname = current_database() AND locktype = 'advisory' AND NOT granted`,
      );
    try {
      await until(inDatabase, (found) => found.length > 0);
      // The waiting changes were sent before these requests.
      for (let n = 0; n < 5; n += 1) expect(await bob.list()).toEqual([]);
      expect(await inDatabase()).toHaveLength(1);
    } finally {
      await direct.sql('SELECT pg_advisory_unlock(hashtextextended($1, 0))', lock);
    }
    const statuses = (await Promise.all(waiting)).map(({ status }) => status).sort();
    expect(statuses).toEqual([...Array<number>(20).fill(201), ...Array<number>(20).fill(409)]);
  });
});

describe('the database', () => {
  it('refuses a second default and an unknown server type from any writer', async () => {
    const { ada } = await createTestUser();
    await ada.add({ connection_config: createSshServerConfig() });
    const second = await ada.add({ connection_config: createSshServerConfig() });
    await expect(
      direct.sql('UPDATE user_execution_servers SET is_default = true WHERE id = $1', [second.id]),
    ).rejects.toThrow('user_execution_servers_default');
    await expect(
      direct.sql(`UPDATE user_execution_servers SET server_type = 'telnet' WHERE id = $1`, [second.id]),
    ).rejects.toThrow('check constraint');
  });
});
