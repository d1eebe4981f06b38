import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import pg from 'pg';
import { createKeyReader } from '../../src/keys/key-reader.ts';
import { createVault } from '../../src/keys/vault.ts';
import type { Database } from '../../src/lib/postgres/database.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { PROVIDERS } from '../../src/providers/index.ts';
import { startCutProxy, type CutProxy } from '../support/cut-proxy.ts';
import { createDatabase, stack } from '../support/stack.ts';
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

/** What is remembered grows old by itself in twice this time: what is obeyed within it was heard of. */
const LIMIT_MS = 5_000;
/** How often each way is tried. */
const ROUNDS = Number(process.env['OPS_TEST_ROUNDS'] ?? 20);

let options: InstanceOptions;
let tables: pg.Client;
let relay: Relay;
/** Calls of the second process to Keycloak so far. */
let calls = 0;
let proxy: CutProxy;
/** Changes keys. */
let writer: Instance;
/** Remembers them; reaches Keycloak through the relay and hears through the proxy. */
let other: Instance;
/** Owners of whom the second process has been told. */
const toldOf: string[] = [];

beforeAll(async () => {
  const { appUrl, ownerUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  proxy = await startCutProxy(appUrl);
  options = createInstanceOptions(appUrl);
  writer = createInstance(options);
  other = createInstance({ ...options, keycloakUrl: relay.url, notificationsUrl: proxy.through(appUrl) });
  tables = new pg.Client({ connectionString: ownerUrl });
  await tables.connect();
  other.notifications.onNotification((owner) => void toldOf.push(owner));
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

/** Someone with one key, which the other process remembers. */
async function personWithKey() {
  const principal = createPrincipal();
  const owner = `user:${principal.user.id}` as const;
  const { key } = await writer.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r1');
  const served = async () => (await other.keys.readPools(owner)).get('openai') ?? [];
  // The notices of the add itself may still be on their way.
  await until(async () => (await callsOf(served)) === 0);
  return { principal, owner, key, served };
}

type Person = Awaited<ReturnType<typeof personWithKey>>;

async function callsOf(work: () => Promise<unknown>): Promise<number> {
  const before = calls;
  await work();
  return calls - before;
}

const remove = ({ principal, key }: Person) => writer.keys.remove(principal, 'openai', key.id, 'r2');

/** Until then the other process serves what it remembers only as long as it takes itself for one that hears. */
async function untilRefused({ served }: Person): Promise<void> {
  const isRefused = async () => {
    const wasHeard = other.notifications.isListening();
    const isServed = (await served()).length > 0;
    expect({ isServed, wasHeard }).not.toEqual({ isServed: true, wasHeard: false });
    return !isServed;
  };
  await until(isRefused, Boolean, LIMIT_MS);
}

/** Everything that was told before this has been heard by the other process when it resolves. */
async function untilHeard(): Promise<void> {
  const mark = `mark ${String(Math.random())}`;
  await writer.database.run("SELECT pg_notify('ops_center_owners', $1)", [mark]);
  await until(() => toldOf.includes(mark));
}

// How soon is measured by the benchmark (npm run bench).
describe('a key that was deleted in one process is refused in the other', () => {
  it(
    'from the notice on, while notices are heard',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const person = await personWithKey();
        await remove(person);
        await untilHeard();
        expect(await person.served()).toEqual([]);
      }
    },
    10_000 + ROUNDS * 2_000,
  );

  it(
    'from the cut on, while the connection that listens is cut',
    async () => {
      for (let round = 0; round < ROUNDS; round += 1) {
        const person = await personWithKey();
        proxy.cut();
        await remove(person);
        await untilRefused(person);
        proxy.restore();
        await until(() => other.notifications.isListening());
      }
    },
    10_000 + ROUNDS * 4_000,
  );

  it(
    'once it knows itself deaf, while a proxy swallows what the connection carries',
    async () => {
      const atOnce = 5;
      for (let round = 0; round < ROUNDS; round += atOnce) {
        const people = await Promise.all(Array.from({ length: atOnce }, personWithKey));
        proxy.silence();
        toldOf.length = 0;
        await Promise.all(people.map(remove));
        await Promise.all(people.map(untilRefused));
        // It was not told, and has found by itself that it hears nothing.
        expect(toldOf).toEqual([]);
        proxy.restore();
        await until(() => other.notifications.isListening());
      }
    },
    10_000 + ROUNDS * 4_000,
  );

  it('also when it was cut off during the delete and hears again', async () => {
    const person = await personWithKey();
    proxy.cut();
    await until(() => !other.notifications.isListening());
    await writer.keys.remove(person.principal, 'openai', person.key.id, 'r2');
    proxy.restore();
    await until(() => other.notifications.isListening());
    expect(await person.served()).toEqual([]);
  });
});

describe('in its own process', () => {
  /** It hears none of its own notices: what it forgets it forgets by itself. */
  let alone: Instance;
  beforeAll(async () => {
    alone = createInstance({ ...options, keycloakUrl: relay.url, notificationsChannel: 'elsewhere' });
    await alone.notifications.start();
  });
  afterAll(() => alone.close());

  const remembered = async (owner: Person['owner']) =>
    (await alone.keys.readPools(owner)).get('openai') ?? [];

  it('a change shows to whoever asks after its answer', async () => {
    const { principal, owner } = await personWithKey();
    expect(await remembered(owner)).toHaveLength(1);
    const { key } = await alone.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r2');
    expect(await remembered(owner)).toHaveLength(2);
    await alone.keys.remove(principal, 'openai', key.id, 'r3');
    expect(await remembered(owner)).toHaveLength(1);
  });

  it('a change shows also while a reading from before it is under way', async () => {
    const { principal, owner, key } = await personWithKey();
    const { held, release } = holdNextReading();
    const older = remembered(owner);
    await held;
    await alone.keys.remove(principal, 'openai', key.id, 'r2');
    const newer = await remembered(owner);
    release();
    expect(newer).toEqual([]);
    await older;
    expect(await remembered(owner)).toEqual([]);
  });

  it('a key that was refused is passed over at once, and used again at once when it has served', async () => {
    const { owner, key } = await personWithKey();
    expect((await remembered(owner))[0]?.cooldownUntil).toBeNull();
    await alone.keys.recordRefusal(owner, 'openai', key.id);
    expect((await remembered(owner))[0]?.cooldownUntil).toBeInstanceOf(Date);
    await alone.keys.recordUse(owner, 'openai', key.id);
    expect((await remembered(owner))[0]?.cooldownUntil).toBeNull();
  });
});

/** Holds Keycloak's next answer about a record, which it has read by then, until it is released. */
function holdNextReading(): { held: Promise<void>; release: () => void } {
  const [held, released] = [Promise.withResolvers<undefined>(), Promise.withResolvers<undefined>()];
  let isTaken = false;
  relay.after(async (call) => {
    if (!isTaken && call.method === 'GET' && /\/users\/[^?]/.test(call.url ?? '')) {
      isTaken = true;
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

describe('a reading from before a change that ends after it', () => {
  it('is not kept', async () => {
    const { principal, owner, key, served } = await personWithKey();
    other.reader.invalidate(owner);
    const { held, release } = holdNextReading();
    const older = served();
    await held;
    await writer.keys.remove(principal, 'openai', key.id, 'r2');
    release();
    // The request that had asked before is served.
    expect(await older).toHaveLength(1);
    expect(await served()).toEqual([]);
  });

  it('is not kept even where no notice comes: the generation has changed', async () => {
    const { principal, owner, key } = await personWithKey();
    const reader = readerThatHearsNothing(relay.url, other.database);
    const { held, release } = holdNextReading();
    const older = reader.readPools(owner);
    await held;
    await writer.keys.remove(principal, 'openai', key.id, 'r2');
    release();
    expect((await older).keys).toHaveLength(1);
    expect((await reader.readPools(owner)).keys).toEqual([]);
  });
});

/** It believes that it hears everything. */
function readerThatHearsNothing(keycloakUrl: string, database: Database) {
  const { realm, client } = options;
  const keycloak = createKeycloakAdmin({
    baseUrl: keycloakUrl,
    realm,
    clientId: client.id,
    clientSecret: client.secret,
  });
  const log = createLog('silent');
  const vault = createVault({ keycloak, recordIsUser: false, log });
  const notices = { isListening: () => true, onNotification: () => undefined, onGap: () => undefined };
  return createKeyReader({ database, vault, providers: PROVIDERS, notifications: notices, log });
}

describe('a writer that died in the middle', () => {
  it('leaves its mark: until that ends nothing of the owner is kept', async () => {
    const { owner, served } = await personWithKey();
    const setMark = (until: string) =>
      tables.query(`UPDATE owners SET writing_until = ${until} WHERE owner = $1`, [owner]);
    await setMark("now() + interval '1 minute'");
    other.reader.invalidate(owner);
    for (let reading = 0; reading < 3; reading += 1) {
      expect(await callsOf(served)).toBe(1);
      expect(await served()).toHaveLength(1);
    }
    await setMark("now() - interval '1 second'");
    expect(await callsOf(served)).toBe(1);
    expect(await callsOf(served)).toBe(0);
  });
});

describe('reading for the hot path', () => {
  it('asks neither Keycloak nor the database while it is warm', async () => {
    const { owner } = await personWithKey();
    let queries = 0;
    const counting: Database = {
      ...other.database,
      withOwner: (name, work) => {
        queries += 1;
        return other.database.withOwner(name, work);
      },
    };
    const reader = readerThatHearsNothing(relay.url, counting);
    await reader.readPools(owner);
    expect(queries).toBeGreaterThan(0);
    const before = { queries, calls };
    for (let reading = 0; reading < 50; reading += 1) {
      expect((await reader.readPools(owner)).keys).toHaveLength(1);
    }
    expect({ queries, calls }).toEqual(before);
  });
});

describe('what is found out about a key in one process', () => {
  it('is obeyed in the other: it is set aside, and used again when it has served', async () => {
    const { owner, key, served } = await personWithKey();
    const asideUntil = async () => (await served())[0]?.cooldownUntil ?? null;
    await writer.keys.recordRefusal(owner, 'openai', key.id);
    await until(asideUntil, (time) => time !== null, LIMIT_MS);
    await writer.keys.recordUse(owner, 'openai', key.id);
    await until(asideUntil, (time) => time === null, LIMIT_MS);
  });

  it('makes nobody read anew when it is only that the key was used', async () => {
    const { principal, owner, key, served } = await personWithKey();
    await writer.keys.recordUse(owner, 'openai', key.id);
    await other.keys.recordUse(owner, 'openai', key.id);
    await untilHeard();
    expect(await callsOf(served)).toBe(0);
    // While the list is of now.
    const [view] = await other.keys.listKeys(principal.user);
    expect(view?.last_used).not.toBeNull();
  });

  it('is written down once a second at most when it is always the same', async () => {
    const { owner, key, served } = await personWithKey();
    const versions = async () =>
      (await tables.query('SELECT xmin::text FROM provider_key_facts WHERE key_id = $1', [key.id]))
        .rows as unknown[];
    await served();
    await other.keys.recordUse(owner, 'openai', key.id);
    const first = await versions();
    expect(first).toHaveLength(1);
    await Promise.all(Array.from({ length: 20 }, () => other.keys.recordUse(owner, 'openai', key.id)));
    expect(await versions()).toEqual(first);
    // What says something new is not held back by that.
    await other.keys.recordRefusal(owner, 'openai', key.id);
    await served();
    await other.keys.recordUse(owner, 'openai', key.id);
    expect((await served())[0]?.cooldownUntil).toBeNull();
  });
});
