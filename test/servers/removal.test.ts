import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createDatabase } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import { createServerData } from '../../src/servers/service.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { openServers, type DirectServers } from '../support/servers-direct.ts';
import { createSshServerConfig, createServerClient } from '../support/servers.ts';
import { adminClient } from '../support/stack.ts';
import { until } from '../support/until.ts';

let app: TestApp;
let direct: DirectServers;

beforeAll(async () => {
  app = await startApp();
  direct = await openServers(app);
});
afterAll(async () => {
  await direct.close();
  await app.stop();
});

const serversOf = (userId: string) =>
  direct.sql('SELECT id FROM user_execution_servers WHERE user_id = $1', [userId]);

it('deletes the servers of a user whom an administrator deletes, and no others', async () => {
  const [ada, bob] = [await createServerClient(app), await createServerClient(app)];
  const jump = await ada.add({ connection_config: createSshServerConfig() });
  await ada.add({ connection_config: createSshServerConfig({ jump: jump.id }) });
  await bob.add({ connection_config: createSshServerConfig() });
  await (await adminClient()).users.del({ id: ada.user.id });
  await until(
    () => serversOf(ada.user.id),
    (rows) => rows.length === 0,
  );
  expect(await serversOf(bob.user.id)).toHaveLength(1);
  const auditEvents = await direct.sql(
    `SELECT actor, action FROM audit_events WHERE owner = $1 AND action = 'server.deleted'`,
    [`user:${ada.user.id}`],
  );
  const row = { actor: 'system:keycloak', action: 'server.deleted' };
  expect(auditEvents).toEqual([row, row]);
});

it('the app’s database role can list all owners of servers, and read nothing else of them', async () => {
  const [ada, bob] = [await createServerClient(app), await createServerClient(app)];
  await ada.add({ connection_config: createSshServerConfig() });
  const log = createLog('silent');
  const database = createDatabase({ url: app.databaseUrl, max: 1, applicationName: 'test', log });
  const data = createServerData({ database, keyring: direct.keyring, runners: new Map(), log });
  const owners = await data.listOwners();
  expect(owners).toContain(`user:${ada.user.id}`);
  expect(owners).not.toContain(`user:${bob.user.id}`);
  expect(await database.run('SELECT FROM user_execution_servers')).toBe(0);
  await database.close();
});
