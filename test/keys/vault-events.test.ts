import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { isAppError } from '../../src/lib/errors.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { createVaultEventReader } from '../../src/keys/vault-events.ts';
import { adminClient, createDatabase, stack } from '../support/stack.ts';
import { editVaultRecord, readVaultRecord } from '../support/vault-record.ts';
import { until } from '../support/until.ts';
import {
  createInstance,
  createPrincipal,
  randomEncryptionKey,
  randomKey,
  type Instance,
} from './instance.ts';
import { createRelay, type Relay } from './keycloak-relay.ts';

let instance: Instance;
let other: Instance;
let relay: Relay;
/** Keycloak's answers of an instance to the reading of records. */
let readings = 0;
/** One poll, as the app's loop does it every 2 s. */
let poll: () => Promise<void>;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  relay.before((call) => {
    if (call.url?.includes('/users/') === true) readings += 1;
    return 'pass';
  });
  const { vaultRealm: realm, vaultClient: client } = stack.keycloak;
  const encryptionKeys = [randomEncryptionKey()];
  const options = { databaseUrl: appUrl, realm, client, encryptionKeys };
  instance = createInstance({ ...options, keycloakUrl: relay.url });
  other = createInstance({ ...options, keycloakUrl: stack.keycloak.url });
  await Promise.all([instance.notifications.start(), other.notifications.start()]);
  const { id: clientId, secret: clientSecret } = client;
  const keycloak = createKeycloakAdmin({ baseUrl: stack.keycloak.url, realm, clientId, clientSecret });
  const { database, reader } = instance;
  poll = createVaultEventReader({ keycloak, database, reader, log: createLog('silent') });
  await poll();
});
afterAll(async () => {
  await Promise.all([instance.close(), other.close()]);
  await relay.close();
});

async function personWithKey(in_: Instance = instance) {
  const principal = createPrincipal();
  const owner = `user:${principal.user.id}` as const;
  const { key } = await in_.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r1');
  const pool = async (by: Instance = instance) => (await by.keys.readPools(owner)).get('openai') ?? [];
  /** Answers whether Keycloak was asked. */
  const isRead = async () => {
    const before = readings;
    await pool();
    return readings > before;
  };
  return { principal, user: principal.user, owner, key, pool, isRead };
}

/** Our own writes are events too: they must have been read before a test can tell what another event does. */
async function untilRemembered(person: Awaited<ReturnType<typeof personWithKey>>): Promise<void> {
  await poll();
  await until(async () => !(await person.isRead()));
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: unknown) => (isAppError(error) ? error.code : String(error)),
  );
}

describe('an administrator', () => {
  it('who disables a key in the console is obeyed with the next poll', async () => {
    const person = await personWithKey();
    await untilRemembered(person);
    const [value = ''] = (await readVaultRecord(person.user)).attributes['byok_openai'] ?? [];
    await editVaultRecord(person.user, { byok_openai: [value.replace('"enabled":true', '"enabled":false')] });
    expect((await person.pool())[0]?.enabled).toBe(true);
    await poll();
    expect((await person.pool())[0]?.enabled).toBe(false);
  });

  it('who removes a key in the console is obeyed with the next poll, and others are not read again', async () => {
    const [person, neighbour] = [await personWithKey(), await personWithKey()];
    await untilRemembered(person);
    await untilRemembered(neighbour);
    await editVaultRecord(person.user, { byok_openai: [] });
    await poll();
    expect(await neighbour.isRead()).toBe(false);
    expect(await person.pool()).toEqual([]);
  });

  it('is obeyed at the oldest of 250 events at once', async () => {
    const [person, busy] = [await personWithKey(), await personWithKey()];
    await untilRemembered(person);
    await editVaultRecord(person.user, { byok_openai: [] });
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const { id } = await readVaultRecord(busy.user);
    const stored = await admin.users.findOne({ id });
    for (let batch = 0; batch < 25; batch += 1) {
      await Promise.all(Array.from({ length: 10 }, () => admin.users.update({ id }, { ...stored })));
    }
    await poll();
    expect(await person.pool()).toEqual([]);
  }, 60_000);
});

describe('a vault record that is known and not found', () => {
  async function deleteRecord(user: { id: string }): Promise<void> {
    const admin = await adminClient(stack.keycloak.vaultRealm);
    await admin.users.del({ id: (await readVaultRecord(user)).id });
  }

  it('is no "no keys", for the gateway and the list, until the event says that it was deleted', async () => {
    const person = await personWithKey();
    await deleteRecord(person.user);
    instance.reader.invalidate(person.owner);
    const refused = await person.pool().catch((error: unknown) => error);
    expect(refused).toMatchObject({
      code: 'key_undecryptable',
      status: 424,
      detail: expect.stringContaining('an administrator must look'),
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
    });
    expect(await codeOf(instance.keys.listKeys(person.user))).toBe('key_undecryptable');
    expect(await codeOf(instance.keys.listProviders(person.user))).toBe('key_undecryptable');
    await poll();
    expect(await person.pool()).toEqual([]);
    expect(await instance.keys.listKeys(person.user)).toEqual([]);
  });

  it('stays so when an empty one is made in its place by hand', async () => {
    const person = await personWithKey();
    await deleteRecord(person.user);
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const attributes = { owner: [person.owner] };
    await admin.users.create({ username: `user.${person.user.id}`, enabled: false, attributes });
    instance.reader.invalidate(person.owner);
    expect(await codeOf(person.pool())).toBe('key_undecryptable');
    await poll();
    expect(await person.pool()).toEqual([]);
  });

  it('is normal again with the next key, which the late event does not take away', async () => {
    const person = await personWithKey();
    await deleteRecord(person.user);
    const { key } = await instance.keys.add(person.principal, { provider: 'openai', key: randomKey() }, 'r2');
    await poll();
    expect((await person.pool()).map(({ id }) => id)).toEqual([key.id]);
  });

  it('is told to the other processes when it was deleted', async () => {
    const person = await personWithKey();
    await person.pool(other);
    await deleteRecord(person.user);
    await poll();
    await until(
      () => person.pool(other),
      (pool) => pool.length === 0,
      1_000,
    );
  });

  it('is not forgotten because of an event about a part of it', async () => {
    const person = await personWithKey();
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const { id } = await readVaultRecord(person.user);
    const group = await admin.groups.create({ name: `group-${randomBytes(6).toString('hex')}` });
    await admin.users.addToGroup({ id, groupId: group.id });
    await admin.users.delFromGroup({ id, groupId: group.id });
    await poll();
    const [row] = await instance.database.withOwner(person.owner, async (sql) => [
      await sql.run('SELECT FROM owners WHERE vault_id = $1', [id]),
    ]);
    expect(row).toBe(1);
    await admin.groups.del({ id: group.id });
  });
});
