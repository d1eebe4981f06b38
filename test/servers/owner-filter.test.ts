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
import { createDatabase } from '../support/stack.ts';

/** As the owner of the schema: row-level security does not hold for it, so that the statements stand alone. */
let database: Database;
let theirs: StoredServer;
const settings = {
  name: 'A server',
  serverType: 'ssh' as const,
  config: { password: 'token' },
  workspacePath: null,
  hostKey: null,
  isActive: true,
  isDefault: true,
};
const as = <T>(user: string, work: (sql: Sql) => Promise<T>) => database.withOwner(`user:${user}`, work);

beforeAll(async () => {
  const { ownerUrl: url } = await createDatabase();
  database = openDatabase({ url, max: 2, applicationName: 'test', log: createLog('silent') });
  theirs = await as('bob', (sql) => insertServer(sql, 'bob', { ...settings, id: randomUUID() }));
  await as('ada', (sql) => insertServer(sql, 'ada', { ...settings, id: randomUUID() }));
});
afterAll(() => database.close());

it('a list holds the servers of the transaction\u2019s owner alone, and nothing without an owner', async () => {
  expect(await as('bob', listServers)).toEqual([theirs]);
  expect(await as('ada', listServers)).toHaveLength(1);
  expect(await listServers(database)).toEqual([]);
});

it.each<[string, (sql: Sql, id: string) => Promise<unknown>]>([
  ['taking the mark of the default away', (sql) => clearDefault(sql)],
  ['deleting', (sql, id) => deleteServer(sql, id)],
  ['changing', (sql, id) => updateServer(sql, id, settings, false).catch(() => undefined)],
  [
    'putting in another token',
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
])('%s leaves the servers of others alone', async (_name, work) => {
  await as('ada', (sql) => work(sql, theirs.id));
  expect(await as('bob', listServers)).toEqual([theirs]);
});
