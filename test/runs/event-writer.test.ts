import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import { createRunExit, NO_BYTES } from '../../src/runs/events.ts';
import { createEventWriter } from '../../src/runs/event-writer.ts';
import { createActiveRun } from '../../src/runs/active-run.ts';
import { createRunsStore, type RunsStore } from '../../src/runs/runs-store.ts';
import { createRunEncryption } from '../../src/runs/run-encryption.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/stack.ts';

const log = createLog('silent');
const seals = createRunEncryption(createKeyring([fernetKey()]));
let database: Database;
let store: RunsStore;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 4, applicationName: 'keeper-test', log });
  store = createRunsStore(database, {
    ...{ instance: 'one', leaseMs: 60_000, mostQueued: 64, mostKept: 3 },
    limits: { perUser: 8, perServer: 8 },
  });
});
afterAll(() => database.close());

/** A run under way. */
async function begun(owner: `user:${string}` = `user:${randomUUID()}`) {
  const name = { id: randomUUID(), owner };
  const facts = { serverId: 'a', serverName: 'A', serverType: 'ssh', serverVersions: [1] } as const;
  await store.submit({ ...name, ...facts, language: null, codeSha256: '', sealed: '-' }, true, 'req_test');
  return createActiveRun(name, null);
}

const keep = (run: ReturnType<typeof createActiveRun>) =>
  createEventWriter(run, 0, { store, seals, log, closing: new AbortController().signal });

describe('the end of a run', () => {
  it('is stored as it was', async () => {
    const run = await begun();
    expect(await keep(run).finish({ ...createRunExit('exited', null), code: 3 })).toBe(true);
    expect(await store.findRun(run)).toMatchObject({ status: 'finished', cause: 'exited', code: 3 });
  });

  it('that the database does not take is stored without its details, and tried no more', async () => {
    const run = await begun();
    const beyondPostgres = { ...createRunExit('exited', null), code: 2 ** 32 - 1 };
    expect(await keep(run).finish(beyondPostgres)).toBe(true);
    expect(await store.findRun(run)).toMatchObject({
      status: 'finished',
      cause: 'infrastructure',
      code: null,
    });
  });

  it('that the database does not take in any form is left to the lease', async () => {
    const run = await begun();
    const untakeable = { ...createRunExit('exited', null), durationMs: NaN };
    expect(await keep(run).finish(untakeable)).toBe(false);
    expect(await store.findRun(run)).toMatchObject({ status: 'running' });
  });
});

describe('the history of one user', () => {
  it('holds the latest runs: the oldest goes when one too many has ended', async () => {
    const owner = `user:${randomUUID()}` as const;
    const runs = [];
    for (let at = 0; at < 4; at += 1) {
      const run = await begun(owner);
      const own = { exit: createRunExit('exited', null), batches: [], total: NO_BYTES, lastSeq: 1 };
      await store.finish(run, { ...own, reseal: (sealed) => sealed });
      runs.push(run);
    }
    const [first, second] = runs;
    expect(first && (await store.findRun(first))).toBeUndefined();
    expect(second && (await store.findRun(second))).toMatchObject({ status: 'finished' });
  });
});
