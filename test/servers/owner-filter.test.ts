import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createDatabase as openDatabase, type Database, type Sql } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import {
  clearDefault,
  deleteServer,
  insertServer,
  listServers,
  saveServerTest,
  saveServerUse,
  replaceSecretCiphertext,
  updateServer,
  type StoredServer,
} from '../../src/servers/servers-store.ts';
import { createDatabase } from '../support/database.ts';

/** Connected as the owner of the schema, to which row-level security does not apply: only the statements filter. */
let database: Database;
let foreign: StoredServer;
const settings = {
  name: 'A server',
  serverType: 'ssh' as const,
  config: { password: 'token' },
  workspacePath: null,
  hostKey: null,
  isActive: true,
  tokenRuns: false,
  isDefault: true,
};
const as = <T>(user: string, work: (sql: Sql) => Promise<T>) => database.withOwner(`user:${user}`, work);

beforeAll(async () => {
  const { ownerUrl: url } = await createDatabase();
  database = openDatabase({ url, max: 2, applicationName: 'test', log: createLog('silent') });
  foreign = await as('bob', (sql) => insertServer(sql, 'bob', { ...settings, id: randomUUID() }));
  await as('ada', (sql) => insertServer(sql, 'ada', { ...settings, id: randomUUID() }));
});
afterAll(() => database.close());

it('a list contains only the servers of the transaction\u2019s owner, and nothing without an owner', async () => {
  expect(await as('bob', listServers)).toEqual([foreign]);
  expect(await as('ada', listServers)).toHaveLength(1);
  expect(await listServers(database)).toEqual([]);
});

it.each<[string, (sql: Sql, id: string) => Promise<unknown>]>([
  ['clearing the default', (sql) => clearDefault(sql)],
  ['deleting', (sql, id) => deleteServer(sql, id)],
  ['changing', (sql, id) => updateServer(sql, id, settings, false).catch(() => undefined)],
  [
    'replacing a ciphertext',
    (sql, id) => replaceSecretCiphertext(sql, id, { field: 'password', from: 'token', to: 'other' }),
  ],
  [
    'storing the result of a test',
    (sql, id) =>
      saveServerTest(
        sql,
        { id, version: 1 },
        {
          status: 'online',
          details: { message: '', stages: [], host_key: null },
        },
      ),
  ],
  ['storing a use', (sql, id) => saveServerUse(sql, id)],
])('%s does not affect the servers of other owners', async (_name, work) => {
  await as('ada', (sql) => work(sql, foreign.id));
  expect(await as('bob', listServers)).toEqual([foreign]);
});
