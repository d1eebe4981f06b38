import { afterEach, beforeEach, expect, it } from '@jest/globals';
import pg from 'pg';
import { createDatabase } from '../support/database.ts';

let app: pg.Client;
let owner: pg.Client;

beforeEach(async () => {
  const { appUrl, ownerUrl } = await createDatabase();
  app = new pg.Client({ connectionString: appUrl });
  owner = new pg.Client({ connectionString: ownerUrl });
  await Promise.all([app.connect(), owner.connect()]);
  // Two owners, each with a run that finished 40 days and one that finished 2 hours ago.
  await owner.query(`
    INSERT INTO runs (id, owner, server_id, server_name, server_type, server_versions, sealed, status, holder,
                      lease_until, finished_at, code_sha256, cause, cleanup)
    SELECT name || age, 'user:' || name, 's', 's', 'ssh', '[]', 'x', 'finished', 'i', now(), now() - age, repeat('0', 64), 'exited', 'verified'
    FROM (VALUES ('alice'), ('bob')) AS names (name), (VALUES (interval '40 days'), (interval '2 hours')) AS ages (age)`);
});
afterEach(() => Promise.all([app.end(), owner.end()]));

const countRuns = async () => (await owner.query('SELECT id FROM runs')).rowCount;

it.each([-2_147_483_648, -100_000, -1, 0, null])(
  'the role of the app cannot delete runs that finished within %s days',
  async (days) => {
    await expect(app.query('SELECT prune_runs($1)', [days])).rejects.toMatchObject({ code: '22023' });
    expect(await countRuns()).toBe(4);
  },
);

it('the role of the app deletes runs that finished earlier than the given days', async () => {
  expect((await app.query('SELECT prune_runs($1) AS deleted', [30])).rows).toEqual([{ deleted: '2' }]);
  expect(await countRuns()).toBe(2);
});

it('no other function that the role may call deletes rows of a table with owners', async () => {
  // A new one must refuse numbers that mean "all", as prune_runs does.
  const { rows } = await owner.query(`
    SELECT proname FROM pg_proc JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname = 'public' AND prosecdef AND prosrc ~* '\\mDELETE\\M'
      AND has_function_privilege('ops_center_app', pg_proc.oid, 'EXECUTE') ORDER BY 1`);
  expect(rows.map(({ proname }: { proname: string }) => proname)).toEqual([
    'prune_idempotency_keys',
    'prune_runs',
    'prune_stored_responses',
    'prune_usage',
  ]);
});
