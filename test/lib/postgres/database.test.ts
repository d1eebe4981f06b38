import { describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { createLog } from '../../../src/lib/log.ts';
import { createDatabase as openDatabase, type Database } from '../../../src/lib/postgres/database.ts';
import { blockDatabase, createDatabase } from '../../support/database.ts';

async function withDatabase(url: string, work: (database: Database) => Promise<void>): Promise<void> {
  const database = openDatabase({ url, max: 1, applicationName: 'test', log: createLog('silent') });
  try {
    await work(database);
  } finally {
    await database.close();
  }
}

const USES: [name: string, use: (database: Database) => Promise<unknown>][] = [
  ['run', (database) => database.run('SELECT 1')],
  ['rows', (database) => database.rows(z.object({}), 'SELECT 1')],
  ['a transaction', (database) => database.transaction((sql) => sql.run('SELECT 1'))],
];

describe('a server that refuses the connection', () => {
  it.each(USES)('is unavailable for %s: no connections are allowed', async (_name, use) => {
    const { appUrl } = await createDatabase();
    await withDatabase(appUrl, async (database) => {
      const unblock = await blockDatabase(appUrl);
      await expect(use(database)).rejects.toMatchObject({ code: 'database_unavailable' });
      await unblock();
      await use(database);
    });
  });

  it.each(USES)('is unavailable for %s: another password, or no such database', async (_name, use) => {
    const { appUrl } = await createDatabase();
    for (const part of ['password', 'pathname'] as const) {
      const url = new URL(appUrl);
      url[part] = 'other';
      await withDatabase(url.href, async (database) => {
        await expect(use(database)).rejects.toMatchObject({ code: 'database_unavailable' });
      });
    }
  });

  it.each(USES)('is available for %s when it refuses a statement', async (_name, use) => {
    const { appUrl } = await createDatabase();
    await withDatabase(appUrl, async (database) => {
      await expect(database.run('SELECT absent')).rejects.toMatchObject({ code: '42703' });
      await use(database);
    });
  });
});
