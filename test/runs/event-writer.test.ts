import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import { createRunExit, NO_BYTES } from '../../src/runs/events.ts';
import { createEventWriter } from '../../src/runs/event-writer.ts';
import { createEventBuffer } from '../../src/runs/event-buffer.ts';
import { createRunsStore, type RunsStore } from '../../src/runs/runs-store.ts';
import { createRunEncryption } from '../../src/runs/run-encryption.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';

const log = createLog('silent');
const encryption = createRunEncryption(createKeyring([fernetKey()]));
let database: Database;
let store: RunsStore;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  database = openDatabase({ url: appUrl, max: 4, applicationName: 'event-writer-test', log });
  store = createRunsStore(database, {
    ...{ instance: 'one', leaseMs: 60_000, maxQueuedPerUser: 64, maxFinishedRuns: 3 },
    limits: { perUser: 8, perServer: 8 },
  });
});
afterAll(() => database.close());

/** Stores a run as running. */
async function startRun(owner: `user:${string}` = `user:${randomUUID()}`) {
  const name = { id: randomUUID(), owner };
  const columns = { serverId: 'a', serverName: 'A', serverType: 'ssh', serverVersions: [1] } as const;
  await store.submit(
    { ...name, ...columns, language: null, codeSha256: '', ciphertext: '-' },
    true,
    'req_test',
  );
  return { ...name, events: createEventBuffer() };
}

const writerFor = (run: Awaited<ReturnType<typeof startRun>>) =>
  createEventWriter(run, 0, { store, encryption, log, closing: new AbortController().signal });

describe('finishing a run', () => {
  it('stores the exit', async () => {
    const run = await startRun();
    expect(await writerFor(run).finish({ ...createRunExit('exited', null), code: 3 })).toBe(true);
    expect(await store.findRun(run)).toMatchObject({ status: 'finished', cause: 'exited', code: 3 });
  });

  it('stores the exit without details when the database rejects it', async () => {
    const run = await startRun();
    const beyondPostgres = { ...createRunExit('exited', null), code: 2 ** 32 - 1 };
    expect(await writerFor(run).finish(beyondPostgres)).toBe(true);
    expect(await store.findRun(run)).toMatchObject({
      status: 'finished',
      cause: 'infrastructure',
      code: null,
    });
  });

  it('gives up and leaves the run to its lease when the database rejects the exit twice', async () => {
    const run = await startRun();
    const unstorable = { ...createRunExit('exited', null), durationMs: NaN };
    expect(await writerFor(run).finish(unstorable)).toBe(false);
    expect(await store.findRun(run)).toMatchObject({ status: 'running' });
  });
});

describe('the history of one owner', () => {
  it('keeps the latest runs: the oldest is deleted when there are too many', async () => {
    const owner = `user:${randomUUID()}` as const;
    const runs = [];
    for (let at = 0; at < 4; at += 1) {
      const run = await startRun(owner);
      const own = { exit: createRunExit('exited', null), batches: [], total: NO_BYTES, lastSeq: 1 };
      await store.finish(run, { ...own, reencrypt: (ciphertext) => ciphertext });
      runs.push(run);
    }
    const [first, second] = runs;
    expect(first && (await store.findRun(first))).toBeUndefined();
    expect(second && (await store.findRun(second))).toMatchObject({ status: 'finished' });
  });
});
