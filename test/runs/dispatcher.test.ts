import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { randomUUID } from 'node:crypto';
import { setImmediate, setTimeout as delay } from 'node:timers/promises';
import { createActiveWork } from '../../src/identity/active-work.ts';
import { createDatabase as openDatabase, type Database } from '../../src/lib/postgres/database.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import { createDispatcher, type Dispatcher } from '../../src/runs/dispatcher.ts';
import { createRunEncryption, type RunRef } from '../../src/runs/run-encryption.ts';
import { createRunsStore, type RunsStore } from '../../src/runs/runs-store.ts';
import { fernetKey } from '../support/app.ts';
import { createDatabase } from '../support/database.ts';
import { until } from '../support/until.ts';

const LEASE_MS = 100;

let database: Database;
let store: RunsStore;
let lines: string[];
let closing: AbortController;

beforeEach(async () => {
  const { appUrl } = await createDatabase();
  lines = [];
  closing = new AbortController();
  database = openDatabase({
    url: appUrl,
    max: 4,
    applicationName: 'dispatcher-test',
    log: createLog('silent'),
  });
  store = openStore('this process');
});
afterEach(async () => {
  closing.abort();
  await database.close();
});

function openStore(instance: string): RunsStore {
  const limits = { perUser: 8, perServer: 8 };
  return createRunsStore(database, { instance, leaseMs: LEASE_MS, maxQueuedPerUser: 64, limits });
}

/** @param changed methods of the store that differ. */
function openDispatcher(changed: Partial<RunsStore>, maxActive = 8): Dispatcher {
  const activeWork = createActiveWork();
  const unused = () => Promise.reject(new Error('no run of this test gets so far'));
  return createDispatcher({
    store: { ...store, ...changed },
    encryption: createRunEncryption(createKeyring([fernetKey()])),
    identity: { isSignInValid: unused, userCache: { findUser: unused, invalidate: () => undefined } },
    servers: { openForRun: unused, openForCleanup: unused, listTokenServerIds: unused, recordUse: unused },
    ...{ activeWork, maxActive, leaseMs: LEASE_MS, maxQueuedPerUser: 64, closing: closing.signal },
    log: createLog('info', { write: (line) => void lines.push(line) }),
  });
}

/** Stores a queued run of another process. Its program does not decrypt, so it ends as soon as it is claimed. */
async function submitInOther(other: RunsStore): Promise<RunRef> {
  const run = { id: randomUUID(), owner: `user:${randomUUID()}` } as const;
  const server = { serverId: 'a', serverName: 'A', serverType: 'ssh', serverVersions: [1] } as const;
  await other.submit(
    { ...run, ...server, language: null, codeSha256: '', ciphertext: '-' },
    false,
    'req_test',
  );
  return run;
}

const statusOf = async (run: RunRef) => (await store.findRun(run))?.status;

describe('claiming', () => {
  it('includes orphans when a claim without them is running', async () => {
    const [isClaiming, gate] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
    const isTaken = Promise.withResolvers<undefined>();
    const dispatcher = openDispatcher({
      async claim(max, includeOrphans) {
        isClaiming.resolve(undefined);
        if (!includeOrphans) await gate.promise;
        return store.claim(max, includeOrphans);
      },
      async takeOrphans(max) {
        const orphans = await store.takeOrphans(max);
        isTaken.resolve(undefined);
        return orphans;
      },
    });
    const orphan = await submitInOther(openStore('a process that has ended'));
    const first = dispatcher.heartbeat();
    await isClaiming.promise;
    await delay(2 * LEASE_MS);
    // The claim of the first heartbeat is still running.
    const second = dispatcher.heartbeat();
    await isTaken.promise;
    await setImmediate();
    gate.resolve(undefined);
    await Promise.all([first, second]);
    expect(await statusOf(orphan)).not.toBe('queued');
  });
});

describe('a claimed run of another process that cannot be read', () => {
  it.each(['findRunWithProgram', 'readBatches'] as const)(
    'is logged and gives its slot to the next run when %s fails',
    async (method) => {
      const failing = new Set([method]);
      const failOnce = async <T>(call: () => Promise<T>): Promise<T> => {
        if (failing.delete(method)) throw new Error('the connection was lost');
        return call();
      };
      const dispatcher = openDispatcher(
        method === 'readBatches'
          ? { readBatches: (...args) => failOnce(() => store.readBatches(...args)) }
          : { findRunWithProgram: (run) => failOnce(() => store.findRunWithProgram(run)) },
        1,
      );
      const other = openStore('a stopping process');
      const [unread, next] = [await submitInOther(other), await submitInOther(other)];
      await other.release();
      dispatcher.claimReleased();
      await until(() => lines.length > 0);
      expect(lines[0]).toContain(unread.id);
      expect(lines[0]).toContain('the connection was lost');
      dispatcher.claimReleased();
      await until(async () => (await statusOf(next)) === 'finished');
      expect(await statusOf(unread)).toBe('running');
    },
  );
});
