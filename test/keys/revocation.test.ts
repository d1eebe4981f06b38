import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createPoolReader } from '../../src/keys/pool-reader.ts';
import { createVault } from '../../src/keys/vault.ts';
import { OWNERS_CHANNEL } from '../../src/keys/vault-index-store.ts';
import type { Database } from '../../src/lib/postgres/database.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { startCutProxy, type CutProxy } from '../support/cut-proxy.ts';
import { createDatabase } from '../support/database.ts';
import { stack } from '../support/stack.ts';
import { until } from '../support/until.ts';
import {
  createInstance,
  createPrincipal,
  randomKey,
  type Instance,
  type InstanceOptions,
} from './instance.ts';
import { createInstanceOptions } from './instance-options.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';

/** Half of the cache's maximum age: a change that takes effect within this time was notified. */
const LIMIT_MS = 5_000;
/** Repetitions of each test. */
const ROUNDS = Number(process.env['OPS_TEST_ROUNDS'] ?? 20);

let options: InstanceOptions;
/** Has the rights of the schema owner. */
let tables: pg.Client;
let relay: Relay;
/** Number of calls to Keycloak by the second process. */
let calls = 0;
let proxy: CutProxy;
/** Changes keys. */
let writer: Instance;
/** Caches them. It calls Keycloak through the relay and listens through the proxy. */
let other: Instance;
/** Owners in the notifications that the second process has received. */
const notifiedOwners: string[] = [];

beforeAll(async () => {
  const { appUrl, ownerUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  proxy = await startCutProxy(appUrl);
  options = createInstanceOptions(appUrl);
  writer = createInstance(options);
  other = createInstance({ ...options, keycloakUrl: relay.url, notificationsUrl: proxy.through(appUrl) });
  tables = new pg.Client({ connectionString: ownerUrl });
  await tables.connect();
  other.notifications.onNotification(OWNERS_CHANNEL, (owner) => void notifiedOwners.push(owner));
  await Promise.all([writer.notifications.start(), other.notifications.start()]);
});
beforeEach(async () => {
  relay.before(() => {
    calls += 1;
    return 'pass';
  });
  await until(() => other.notifications.isListening());
});
afterEach(() => {
  relay.after(() => 'pass');
  proxy.restore();
});
afterAll(async () => {
  await Promise.all([writer.close(), other.close(), tables.end()]);
  await Promise.all([relay.close(), proxy.close()]);
});

/** Creates a user with one key, which the other process has cached. */
async function createUserWithKey() {
  const principal = createPrincipal();
  const owner = `user:${principal.user.id}` as const;
  const { key } = await writer.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r1');
  const readKeys = async () => (await other.keys.readKeysByProvider(owner)).get('openai') ?? [];
  // The notifications of the add itself may arrive later.
  await until(async () => (await countCalls(readKeys)) === 0);
  return { principal, owner, key, readKeys };
}

type UserWithKey = Awaited<ReturnType<typeof createUserWithKey>>;

async function countCalls(work: () => Promise<unknown>): Promise<number> {
  const before = calls;
  await work();
  return calls - before;
}

const remove = ({ principal, key }: UserWithKey) => writer.keys.remove(principal, 'openai', key.id, 'r2');

/** Waits until the other process has no key. Before that it may use cached keys only while it is listening. */
async function untilRefused({ readKeys }: UserWithKey): Promise<void> {
  const isRefused = async () => {
    const wasListening = other.notifications.isListening();
    const hasKey = (await readKeys()).length > 0;
    expect({ hasKey, wasListening }).not.toEqual({ hasKey: true, wasListening: false });
    return !hasKey;
  };
  await until(isRefused, Boolean, LIMIT_MS);
}

/** Resolves when the other process has received all notifications sent before. */
async function untilNotified(): Promise<void> {
  const marker = `marker ${String(Math.random())}`;
  await writer.database.run("SELECT pg_notify('ops_center_owners', $1)", [marker]);
  await until(() => notifiedOwners.includes(marker));
}

// The latency is measured by the benchmark (npm run bench).
describe('a key deleted in one process is refused in the other', () => {
  it(
    'as soon as the notification is received',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const user = await createUserWithKey();
        await remove(user);
        await untilNotified();
        expect(await user.readKeys()).toEqual([]);
      }
    },
    10_000 + ROUNDS * 2_000,
  );

  it(
    'as soon as the LISTEN connection is lost',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const user = await createUserWithKey();
        proxy.cut();
        await remove(user);
        await untilRefused(user);
        proxy.restore();
        await until(() => other.notifications.isListening());
      }
    },
    10_000 + ROUNDS * 4_000,
  );

  it(
    'as soon as heartbeats are missing, while a proxy drops all data of the connection',
    async () => {
      const concurrency = 5;
      for (let round = 0; round < ROUNDS; round += concurrency) {
        const users = await Promise.all(Array.from({ length: concurrency }, createUserWithKey));
        proxy.silence();
        notifiedOwners.length = 0;
        await Promise.all(users.map(remove));
        await Promise.all(users.map(untilRefused));
        // No notification arrived; the process detected the missing heartbeats itself.
        expect(notifiedOwners).toEqual([]);
        proxy.restore();
        await until(() => other.notifications.isListening());
      }
    },
    10_000 + ROUNDS * 4_000,
  );

  it('even if it was disconnected during the delete and has reconnected', async () => {
    const user = await createUserWithKey();
    proxy.cut();
    await until(() => !other.notifications.isListening());
    await writer.keys.remove(user.principal, 'openai', user.key.id, 'r2');
    proxy.restore();
    await until(() => other.notifications.isListening());
    expect(await user.readKeys()).toEqual([]);
  });
});

describe('in its own process', () => {
  /** It receives none of its own notifications, so that only its own invalidation has an effect. */
  let isolated: Instance;
  beforeAll(async () => {
    isolated = createInstance({
      ...options,
      keycloakUrl: relay.url,
      notificationsChannel: 'another_channel',
    });
    await isolated.notifications.start();
  });
  afterAll(() => isolated.close());

  const readCached = async (owner: UserWithKey['owner']) =>
    (await isolated.keys.readKeysByProvider(owner)).get('openai') ?? [];

  it('a change is visible to every read after its response', async () => {
    const { principal, owner } = await createUserWithKey();
    expect(await readCached(owner)).toHaveLength(1);
    const { key } = await isolated.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r2');
    expect(await readCached(owner)).toHaveLength(2);
    await isolated.keys.remove(principal, 'openai', key.id, 'r3');
    expect(await readCached(owner)).toHaveLength(1);
  });

  it('a change is visible even while an earlier read is running', async () => {
    const { principal, owner, key } = await createUserWithKey();
    const { held, release } = holdNextRead();
    const older = readCached(owner);
    await held;
    await isolated.keys.remove(principal, 'openai', key.id, 'r2');
    const newer = await readCached(owner);
    release();
    expect(newer).toEqual([]);
    await older;
    expect(await readCached(owner)).toEqual([]);
  });

  it('a refused key has a cooldown at once, and none at once after a successful use', async () => {
    const { owner, key } = await createUserWithKey();
    expect((await readCached(owner))[0]?.cooldownUntil).toBeNull();
    await isolated.keys.recordRefusal(owner, 'openai', key.id);
    expect((await readCached(owner))[0]?.cooldownUntil).toBeInstanceOf(Date);
    await isolated.keys.recordUse(owner, 'openai', key.id);
    expect((await readCached(owner))[0]?.cooldownUntil).toBeNull();
  });
});

/** Delays Keycloak's next response with a vault record until `release` is called. */
function holdNextRead(): { held: Promise<void>; release: () => void } {
  const [held, released] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  let isHolding = false;
  relay.after(async (call) => {
    if (!isHolding && call.method === 'GET' && /\/users\/[^?]/.test(call.url ?? '')) {
      isHolding = true;
      held.resolve(undefined);
      await released.promise;
    }
    return 'pass' as const;
  });
  return {
    held: held.promise,
    release: () => {
      released.resolve(undefined);
    },
  };
}

describe('a read that starts before a change and ends after it', () => {
  it('is not cached', async () => {
    const { principal, owner, key, readKeys } = await createUserWithKey();
    other.reader.invalidate(owner);
    const { held, release } = holdNextRead();
    const older = readKeys();
    await held;
    await writer.keys.remove(principal, 'openai', key.id, 'r2');
    release();
    // The earlier request still receives the key.
    expect(await older).toHaveLength(1);
    expect(await readKeys()).toEqual([]);
  });

  it('is not cached even without a notification, since the generation has changed', async () => {
    const { principal, owner, key } = await createUserWithKey();
    const reader = createReaderWithoutNotifications(relay.url, other.database);
    const { held, release } = holdNextRead();
    const older = reader.readPools(owner);
    await held;
    await writer.keys.remove(principal, 'openai', key.id, 'r2');
    release();
    expect((await older).keys).toHaveLength(1);
    expect((await reader.readPools(owner)).keys).toEqual([]);
  });
});

/** Creates a reader that always counts as listening but receives no notifications. */
function createReaderWithoutNotifications(keycloakUrl: string, database: Database) {
  const { realm, client } = options;
  const keycloak = createKeycloakAdmin({
    baseUrl: keycloakUrl,
    realm,
    clientId: client.id,
    clientSecret: client.secret,
  });
  const log = createLog('silent');
  const vault = createVault({ keycloak, recordIsUser: false, log });
  const notifications = { isListening: () => true, onNotification: () => undefined, onGap: () => undefined };
  return createPoolReader({ database, vault, providers: PROVIDERS, notifications, log });
}

describe('a writer that was killed during a write', () => {
  it('leaves the write mark of the owner, and nothing is cached until it expires', async () => {
    const { owner, readKeys } = await createUserWithKey();
    const setWriteMark = (until: string) =>
      tables.query(`UPDATE owners SET writing_until = ${until} WHERE owner = $1`, [owner]);
    await setWriteMark("now() + interval '1 minute'");
    other.reader.invalidate(owner);
    for (let reading = 0; reading < 3; reading += 1) {
      expect(await countCalls(readKeys)).toBe(1);
      expect(await readKeys()).toHaveLength(1);
    }
    await setWriteMark("now() - interval '1 second'");
    expect(await countCalls(readKeys)).toBe(1);
    expect(await countCalls(readKeys)).toBe(0);
  });
});

describe('reading from the cache', () => {
  it('calls neither Keycloak nor the database', async () => {
    const { owner } = await createUserWithKey();
    let queries = 0;
    const countingDatabase: Database = {
      ...other.database,
      withOwner: (name, work) => {
        queries += 1;
        return other.database.withOwner(name, work);
      },
    };
    const reader = createReaderWithoutNotifications(relay.url, countingDatabase);
    await reader.readPools(owner);
    expect(queries).toBeGreaterThan(0);
    const before = { queries, calls };
    for (let reading = 0; reading < 50; reading += 1) {
      expect((await reader.readPools(owner)).keys).toHaveLength(1);
    }
    expect({ queries, calls }).toEqual(before);
  });
});

describe('the key status written by one process', () => {
  it('takes effect in the other: the cooldown of a refused key, and its end after a successful use', async () => {
    const { owner, key, readKeys } = await createUserWithKey();
    const readCooldown = async () => (await readKeys())[0]?.cooldownUntil ?? null;
    await writer.keys.recordRefusal(owner, 'openai', key.id);
    await until(readCooldown, (time) => time !== null, LIMIT_MS);
    await writer.keys.recordUse(owner, 'openai', key.id);
    await until(readCooldown, (time) => time === null, LIMIT_MS);
  });

  it('does not invalidate caches when it is only the last use', async () => {
    const { principal, owner, key, readKeys } = await createUserWithKey();
    await writer.keys.recordUse(owner, 'openai', key.id);
    await other.keys.recordUse(owner, 'openai', key.id);
    await untilNotified();
    expect(await countCalls(readKeys)).toBe(0);
    // The list is always current.
    const [view] = await other.keys.listKeys(principal);
    expect(view?.last_used).not.toBeNull();
  });

  it('is written at most once a second when it does not change', async () => {
    const { owner, key, readKeys } = await createUserWithKey();
    const versions = async () =>
      (await tables.query('SELECT xmin::text FROM provider_key_facts WHERE key_id = $1', [key.id]))
        .rows as unknown[];
    await readKeys();
    await other.keys.recordUse(owner, 'openai', key.id);
    const first = await versions();
    expect(first).toHaveLength(1);
    await Promise.all(Array.from({ length: 20 }, () => other.keys.recordUse(owner, 'openai', key.id)));
    expect(await versions()).toEqual(first);
    // A new status is written at once.
    await other.keys.recordRefusal(owner, 'openai', key.id);
    await readKeys();
    await other.keys.recordUse(owner, 'openai', key.id);
    expect((await readKeys())[0]?.cooldownUntil).toBeNull();
  });
});
