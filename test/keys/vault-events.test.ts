import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { isAppError } from '../../src/lib/errors.ts';
import { createKeycloakAdmin } from '../../src/lib/keycloak/keycloak-admin.ts';
import { createLog } from '../../src/lib/log.ts';
import { createVaultEventReader } from '../../src/keys/vault-events.ts';
import { createDatabase } from '../support/database.ts';
import { adminClient, stack } from '../support/stack.ts';
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
/** Number of vault record reads by the instance. */
let recordReads = 0;
/** Runs one poll, as the app does every 2 s. */
let poll: () => Promise<void>;

beforeAll(async () => {
  const { appUrl } = await createDatabase();
  relay = await createRelay(stack.keycloak.url);
  relay.before((call) => {
    if (call.url?.includes('/users/') === true) recordReads += 1;
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

async function createUserWithKey(writer: Instance = instance) {
  const principal = createPrincipal();
  const owner = `user:${principal.user.id}` as const;
  const { key } = await writer.keys.add(principal, { provider: 'openai', key: randomKey() }, 'r1');
  const pool = async (reader: Instance = instance) =>
    (await reader.keys.readKeysByProvider(owner)).get('openai') ?? [];
  /** Reads the pool and returns whether Keycloak was called. */
  const isRead = async () => {
    const before = recordReads;
    await pool();
    return recordReads > before;
  };
  return { principal, user: principal.user, owner, key, pool, isRead };
}

/** Waits until the pool is cached. The app's own writes also cause events; they must be processed before. */
async function untilCached(keyOwner: Awaited<ReturnType<typeof createUserWithKey>>): Promise<void> {
  await poll();
  await until(async () => !(await keyOwner.isRead()));
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'none',
    (error: unknown) => (isAppError(error) ? error.code : String(error)),
  );
}

describe('a change by an administrator', () => {
  it('that disables a key takes effect with the next poll', async () => {
    const keyOwner = await createUserWithKey();
    await untilCached(keyOwner);
    const [value = ''] = (await readVaultRecord(keyOwner.user)).attributes['byok_openai'] ?? [];
    await editVaultRecord(keyOwner.user, {
      byok_openai: [value.replace('"enabled":true', '"enabled":false')],
    });
    expect((await keyOwner.pool())[0]?.enabled).toBe(true);
    await poll();
    expect((await keyOwner.pool())[0]?.enabled).toBe(false);
  });

  it('that removes a key takes effect with the next poll, and other owners are not read again', async () => {
    const [keyOwner, otherOwner] = [await createUserWithKey(), await createUserWithKey()];
    await untilCached(keyOwner);
    await untilCached(otherOwner);
    await editVaultRecord(keyOwner.user, { byok_openai: [] });
    await poll();
    expect(await otherOwner.isRead()).toBe(false);
    expect(await keyOwner.pool()).toEqual([]);
  });

  it('takes effect even if it is the oldest of 250 events in one poll', async () => {
    const [keyOwner, busyOwner] = [await createUserWithKey(), await createUserWithKey()];
    await untilCached(keyOwner);
    await editVaultRecord(keyOwner.user, { byok_openai: [] });
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const { id } = await readVaultRecord(busyOwner.user);
    const stored = await admin.users.findOne({ id });
    for (let batch = 0; batch < 25; batch += 1) {
      await Promise.all(Array.from({ length: 10 }, () => admin.users.update({ id }, { ...stored })));
    }
    await poll();
    expect(await keyOwner.pool()).toEqual([]);
  }, 60_000);
});

describe('a vault record that is known but not found', () => {
  async function deleteRecord(user: { id: string }): Promise<void> {
    const admin = await adminClient(stack.keycloak.vaultRealm);
    await admin.users.del({ id: (await readVaultRecord(user)).id });
  }

  it('is an error in the gateway and the list, not "no keys", until its deletion event is read', async () => {
    const keyOwner = await createUserWithKey();
    await deleteRecord(keyOwner.user);
    instance.reader.invalidate(keyOwner.owner);
    const refused = await keyOwner.pool().catch((error: unknown) => error);
    expect(refused).toMatchObject({
      code: 'key_undecryptable',
      status: 424,
      detail: expect.stringContaining('Ask an administrator'),
      extra: { skipped: [] },
      headers: { 'x-should-retry': 'false' },
    });
    expect(await codeOf(instance.keys.listKeys(keyOwner.principal))).toBe('key_undecryptable');
    expect(await codeOf(instance.keys.listProviders(keyOwner.principal))).toBe('key_undecryptable');
    await poll();
    expect(await keyOwner.pool()).toEqual([]);
    expect(await instance.keys.listKeys(keyOwner.principal)).toEqual([]);
  });

  it('is an error even if an administrator creates an empty one in its place', async () => {
    const keyOwner = await createUserWithKey();
    await deleteRecord(keyOwner.user);
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const attributes = { owner: [keyOwner.owner] };
    await admin.users.create({ username: `user.${keyOwner.user.id}`, enabled: false, attributes });
    instance.reader.invalidate(keyOwner.owner);
    expect(await codeOf(keyOwner.pool())).toBe('key_undecryptable');
    await poll();
    expect(await keyOwner.pool()).toEqual([]);
  });

  it('is replaced with the next key, which the late deletion event does not remove', async () => {
    const keyOwner = await createUserWithKey();
    await deleteRecord(keyOwner.user);
    const { key } = await instance.keys.add(
      keyOwner.principal,
      { provider: 'openai', key: randomKey() },
      'r2',
    );
    await poll();
    expect((await keyOwner.pool()).map(({ id }) => id)).toEqual([key.id]);
  });

  it('is invalidated in other processes when its deletion event is read', async () => {
    const keyOwner = await createUserWithKey();
    await keyOwner.pool(other);
    await deleteRecord(keyOwner.user);
    await poll();
    await until(
      () => keyOwner.pool(other),
      (pool) => pool.length === 0,
      1_000,
    );
  });

  it('is not removed by an event about a sub-resource of the user', async () => {
    const keyOwner = await createUserWithKey();
    const admin = await adminClient(stack.keycloak.vaultRealm);
    const { id } = await readVaultRecord(keyOwner.user);
    const group = await admin.groups.create({ name: `group-${randomBytes(6).toString('hex')}` });
    await admin.users.addToGroup({ id, groupId: group.id });
    await admin.users.delFromGroup({ id, groupId: group.id });
    await poll();
    const [row] = await instance.database.withOwner(keyOwner.owner, async (sql) => [
      await sql.run('SELECT FROM owners WHERE vault_id = $1', [id]),
    ]);
    expect(row).toBe(1);
    await admin.groups.del({ id: group.id });
  });
});
