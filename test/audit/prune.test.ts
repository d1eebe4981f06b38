import { beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { auditPrune } from '../../src/cli/audit.ts';
import { startApp } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';

let urls: Awaited<ReturnType<typeof createDatabase>>;

/** Writes one event for each age in days. */
async function writeEvents(ownerUrl: string, ages: number[]): Promise<void> {
  await query(
    ownerUrl,
    `INSERT INTO audit_events (owner, actor, action, object, request_id, time)
     SELECT 'user:' || age, 'user:a', 'session.started', 'session', 'r', now() - make_interval(days => age)
     FROM unnest($1::integer[]) AS age`,
    [ages],
  );
}

async function query(url: string, text: string, values: unknown[] = []): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text, values)).rows;
  } finally {
    await client.end();
  }
}

const readOwners = async (url: string) =>
  (await query(url, 'SELECT owner FROM audit_events ORDER BY id')).map(
    (row) => (row as { owner: string }).owner,
  );

beforeEach(async () => {
  urls = await createDatabase();
});

describe('audit prune', () => {
  it.each([
    [undefined, ['user:399']],
    ['1000', ['user:999', 'user:401', 'user:399']],
    ['300', []],
  ])('with AUDIT_DAYS=%s keeps %j of all owners', async (days, kept) => {
    await writeEvents(urls.ownerUrl, [999, 401, 399]);
    const printed: string[] = [];
    const environment = { MIGRATION_DATABASE_URL: urls.ownerUrl, ...(days && { AUDIT_DAYS: days }) };
    await auditPrune(environment, (text) => printed.push(text));
    expect(printed).toEqual([`Deleted ${3 - kept.length} audit events older than ${days ?? '400'} days.`]);
    expect(await readOwners(urls.ownerUrl)).toEqual(kept);
  });

  it('deletes more than one batch', async () => {
    await writeEvents(
      urls.ownerUrl,
      Array.from({ length: 20_001 }, () => 500),
    );
    await auditPrune({ MIGRATION_DATABASE_URL: urls.ownerUrl }, () => undefined);
    expect((await readOwners(urls.ownerUrl)).length).toBe(0);
  });

  it.each(['0', '-1', 'x', '1.5'])('refuses AUDIT_DAYS=%s and deletes nothing', async (days) => {
    await writeEvents(urls.ownerUrl, [999]);
    const environment = { MIGRATION_DATABASE_URL: urls.ownerUrl, AUDIT_DAYS: days };
    await expect(auditPrune(environment, () => undefined)).rejects.toThrow('AUDIT_DAYS');
    expect(await readOwners(urls.ownerUrl)).toHaveLength(1);
  });

  it('needs the role that owns the schema', async () => {
    await expect(auditPrune({ DATABASE_URL: urls.appUrl }, () => undefined)).rejects.toThrow(
      'MIGRATION_DATABASE_URL is not set',
    );
    await expect(query(urls.appUrl, 'DELETE FROM audit_events')).rejects.toMatchObject({ code: '42501' });
  });
});

it('in local mode, a start with the role that owns the schema deletes old events', async () => {
  const first = await startApp();
  await writeEvents(first.ownerDatabaseUrl, [401, 399]);
  await first.stop();
  const env = { MIGRATION_DATABASE_URL: first.ownerDatabaseUrl };
  await using _second = await startApp({ shared: first, env });
  expect(await readOwners(first.ownerDatabaseUrl)).toEqual(['user:399']);
});
