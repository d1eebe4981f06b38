import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { createLog } from '../../../src/lib/log.ts';
import { lockUntilCommit, withSessionLock } from '../../../src/lib/postgres/advisory-lock.ts';
import {
  createDatabase as openDatabase,
  type Database,
  type DatabaseConnection,
} from '../../../src/lib/postgres/database.ts';
import { createDatabase } from '../../support/database.ts';
import { until } from '../../support/until.ts';

let database: Database;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 4, applicationName: 'lock-test', log: createLog('silent') });
});
afterAll(() => database.close());

const createBusyError = () => new Error('busy');

/** Ends the connection that holds the lock. */
async function loseConnection(connection: DatabaseConnection): Promise<void> {
  await expect(connection.run('SELECT pg_terminate_backend(pg_backend_pid())')).rejects.toMatchObject({
    code: 'database_unavailable',
  });
}

const isWaiting = async () =>
  (await database.run(
    `SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
  )) > 0;

describe('a session lock', () => {
  it('without a deadline is refused while another connection holds it', async () => {
    const lock = { name: 'one', createBusyError };
    await withSessionLock(database, lock, async () => {
      await expect(withSessionLock(database, lock, () => Promise.resolve())).rejects.toThrow('busy');
    });
    expect(await withSessionLock(database, lock, () => Promise.resolve('free'))).toBe('free');
  });

  it('with a deadline waits until then', async () => {
    const lockUntil = (deadlineMs: number) => ({ name: 'two', createBusyError, deadlineMs });
    let waiting: Promise<string> | undefined;
    await withSessionLock(database, lockUntil(Date.now() + 30_000), async () => {
      const late = withSessionLock(database, lockUntil(Date.now() + 300), () => Promise.resolve());
      await expect(late).rejects.toThrow('busy');
      waiting = withSessionLock(database, lockUntil(Date.now() + 30_000), () => Promise.resolve('free'));
      await until(isWaiting);
    });
    expect(await waiting).toBe('free');
  });

  it('keeps result and error of the work when its connection is lost, and is free afterwards', async () => {
    const lock = { name: 'three', createBusyError };
    const result = await withSessionLock(database, lock, async (connection) => {
      await loseConnection(connection);
      return 'done';
    });
    expect(result).toBe('done');
    const failing = withSessionLock(database, lock, async (connection) => {
      await loseConnection(connection);
      throw new Error('the work failed');
    });
    await expect(failing).rejects.toThrow('the work failed');
    expect(await withSessionLock(database, lock, () => Promise.resolve('free'))).toBe('free');
  });
});

describe('a lock of a transaction', () => {
  it('is held until the commit', async () => {
    const order: string[] = [];
    let second: Promise<void> | undefined;
    await database.transaction(async (sql) => {
      await lockUntilCommit(sql, 'four');
      second = database.transaction(async (other) => {
        await lockUntilCommit(other, 'four');
        order.push('second');
      });
      await until(isWaiting);
      order.push('first');
    });
    await second;
    expect(order).toEqual(['first', 'second']);
  });
});
