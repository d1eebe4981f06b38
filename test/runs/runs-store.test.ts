import { afterAll, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createLog } from '../../src/lib/log.ts';
import type { Owner } from '../../src/lib/owner.ts';
import { createRunExit, NO_BYTES } from '../../src/runs/events.ts';
import type { NewRun } from '../../src/runs/queue-store.ts';
import { createRunsStore, type RunsStore } from '../../src/runs/runs-store.ts';
import { createDatabase } from '../support/database.ts';

const PER_USER = 3;
const PER_SERVER = 2;

let urls: { appUrl: string; ownerUrl: string };
let database: Database;
let owner: Owner;
/** The stores of two processes. */
let one: RunsStore;
let two: RunsStore;

beforeAll(async () => {
  urls = await createDatabase();
  database = openDatabase({
    ...{ url: urls.appUrl, max: 16, applicationName: 'runs-test' },
    log: createLog('silent'),
  });
});
afterAll(() => database.close());
beforeEach(async () => {
  await sql('DELETE FROM runs');
  owner = `user:${randomUUID()}`;
  [one, two] = [store('one'), store('two')];
});

const store = (instance: string) =>
  createRunsStore(database, {
    ...{ instance, leaseMs: 60_000, maxQueuedPerUser: 64 },
    limits: { perUser: PER_USER, perServer: PER_SERVER },
  });

/** Runs SQL as the schema's owner, to which row-level security does not apply. */
async function sql(text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: urls.ownerUrl });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(text)).rows;
  } finally {
    await client.end();
  }
}
const expireLease = (id: string) =>
  sql(`UPDATE runs SET lease_until = now() - interval '1 s' WHERE id = '${id}'`);

function newRun(own: Partial<NewRun> = {}): NewRun {
  return {
    ...{ id: randomUUID(), owner, serverId: 'a', serverName: 'A', serverType: 'ssh' },
    ...{ serverVersions: [1], language: null, codeSha256: '', ciphertext: 'sealed', ...own },
  };
}

async function submit(by: RunsStore, own: Partial<NewRun> = {}, mayStart = true) {
  const run = newRun(own);
  return { id: run.id, owner: run.owner, ...(await by.submit(run, mayStart, 'req_test')) };
}

const finish = {
  exit: createRunExit('exited', null),
  batches: [{ firstSeq: 1, lastSeq: 1, bytes: NO_BYTES, ciphertext: 'of the finish' }],
  ...{ total: NO_BYTES, lastSeq: 1, reencrypt: (ciphertext: string) => `${ciphertext} again` },
};
const toIds = (runs: readonly { id: string }[]) => runs.map(({ id }) => id);

describe('submitting a run', () => {
  it('starts no more runs than the limits allow, for concurrent requests to two processes', async () => {
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, at) =>
        submit(at % 2 === 0 ? one : two, { serverId: ['a', 'b', 'c'][at % 3] ?? '' }),
      ),
    );
    // Fewer may start at once: after a full server has queued a run, the owner's later runs are queued too.
    const started = answers.filter(({ outcome }) => outcome === 'running');
    expect(started.length).toBeLessThanOrEqual(PER_USER);
    const claimed = (await Promise.all([one.claim(40, false), two.claim(40, false)])).flat();
    expect(started.length + claimed.length).toBe(PER_USER);
    const onServers = await sql(
      `SELECT count(*)::integer AS n FROM runs WHERE status = 'running' GROUP BY server_id`,
    );
    expect(Math.max(...onServers.map(({ n }) => Number(n)))).toBeLessThanOrEqual(PER_SERVER);
  });

  it('queues a run behind its owner’s queued runs on the same server, and not behind other owners’ runs', async () => {
    const first = await submit(one, {}, false);
    expect(first).toMatchObject({ outcome: 'queued', position: 1 });
    expect(await submit(two)).toMatchObject({ outcome: 'queued', position: 2 });
    expect(await submit(two, { serverId: 'b' })).toMatchObject({ outcome: 'queued', position: 1 });
    expect(await submit(two, { owner: `user:${randomUUID()}` })).toEqual(
      expect.objectContaining({ outcome: 'running' }),
    );
  });

  it('stores nothing of the 65th queued run, not even in the audit trail', async () => {
    for (let at = 0; at < 64; at += 1) await submit(one, {}, false);
    const refused = await submit(one, {}, false);
    expect(refused.outcome).toBe('full');
    expect(await sql(`SELECT FROM runs WHERE id = '${refused.id}'`)).toEqual([]);
    expect(await sql(`SELECT FROM audit_events WHERE object = 'run:${refused.id}'`)).toEqual([]);
  });
});

describe('a process', () => {
  it('claims its own queued runs, and orphans only if it includes them and their lease has expired', async () => {
    const run = await submit(one, {}, false);
    expect(await two.claim(10, true)).toEqual([]);
    await expireLease(run.id);
    expect(await two.claim(10, false)).toEqual([]);
    expect(toIds(await two.claim(10, true))).toEqual([run.id]);
    expect(await one.claim(10, true)).toEqual([]);
  });

  it('claims released runs of another process at once', async () => {
    const run = await submit(one, {}, false);
    await one.release();
    expect(toIds(await two.claim(10, false))).toEqual([run.id]);
  });

  it('claims no run twice, also for concurrent claims', async () => {
    await Promise.all(
      Array.from({ length: 30 }, () => submit(one, { owner: `user:${randomUUID()}` }, false)),
    );
    await one.release();
    const claimed = await Promise.all([one, two, one, two].map((own) => own.claim(10, false)));
    const ids = toIds(claimed.flat());
    expect(ids).toHaveLength(30);
    expect(new Set(ids).size).toBe(30);
  });

  it('takes over running runs with an expired lease, and none with a renewed lease', async () => {
    const [orphan, renewed] = [await submit(one), await submit(one)];
    await expireLease(orphan.id);
    await one.renew([renewed.id]);
    expect(toIds(await two.takeOrphans(10))).toEqual([orphan.id]);
    expect(await two.takeOrphans(10)).toEqual([]);
    expect(await one.renew([orphan.id, renewed.id])).toEqual(new Map([[renewed.id, false]]));
  });

  it('can neither finish a run that was taken over, nor write to its history', async () => {
    const run = await submit(one);
    await expireLease(run.id);
    await two.takeOrphans(10);
    await one.saveEvents(run, finish.batches);
    expect(await one.finish(run, finish)).toBe(false);
    expect(await sql('SELECT FROM run_events')).toEqual([]);
    expect(await two.finish(run, finish)).toBe(true);
    await two.saveEvents(run, [{ firstSeq: 1, lastSeq: 1, bytes: NO_BYTES, ciphertext: 'too late' }]);
    expect(await two.finish(run, { ...finish, exit: createRunExit('lost', null) })).toBe(false);
    expect(await sql('SELECT sealed FROM run_events')).toEqual([{ sealed: 'of the finish' }]);
    expect(await sql('SELECT cause, sealed, status FROM runs')).toEqual([
      { cause: 'exited', sealed: 'sealed again', status: 'finished' },
    ]);
  });

  it('receives only ids, owners and positions of other owners’ runs', async () => {
    const run = await submit(one, {}, false);
    const client = new pg.Client({ connectionString: urls.appUrl });
    await client.connect();
    const { rows } = await client.query('SELECT * FROM run_places($1)', ['one']);
    expect(rows).toEqual([{ id: run.id, place: 1 }]);
    const { rows: claimed } = await client.query(
      `SELECT * FROM claim_runs('one', false, 5, 5, 5, interval '1 s')`,
    );
    expect(claimed).toEqual([{ id: run.id, owner }]);
    await client.end();
  });
});
