import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { adminClient, createDatabase, stack } from '../support/stack.ts';
import { createInstance, principalOf, randomEncryptionKey, randomKey, type Instance } from './instance.ts';

const realm = `people-${randomBytes(6).toString('hex')}`;
let instance: Instance;

/** A realm in which people are their own vault records: one realm for both, as an operator may choose. */
beforeAll(async () => {
  const admin = await adminClient(realm);
  const secret = randomBytes(24).toString('hex');
  await admin.realms.create({
    realm,
    enabled: true,
    clients: [
      {
        clientId: 'vault',
        enabled: true,
        publicClient: false,
        secret,
        standardFlowEnabled: false,
        serviceAccountsEnabled: true,
      },
    ],
    users: [
      {
        username: 'service-account-vault',
        enabled: true,
        serviceAccountClientId: 'vault',
        clientRoles: { 'realm-management': ['manage-users'] },
      },
    ],
  });
  const profile = await admin.users.getProfile({ realm });
  await admin.users.updateProfile({ ...profile, realm, unmanagedAttributePolicy: 'ADMIN_EDIT' as never });
  const { appUrl } = await createDatabase();
  instance = createInstance({
    databaseUrl: appUrl,
    keycloakUrl: stack.keycloak.url,
    realm,
    client: { id: 'vault', secret },
    encryptionKeys: [randomEncryptionKey()],
    recordIsUser: true,
  });
}, 60_000);

afterAll(async () => {
  await instance.close();
  const admin = await adminClient();
  await admin.realms.del({ realm });
});

describe('one realm for people and keys', () => {
  it("keeps keys with the person's own user and leaves the rest of it as it was", async () => {
    const admin = await adminClient(realm);
    const { id } = await admin.users.create({
      username: 'ada',
      email: 'ada@example.test',
      emailVerified: true,
      firstName: 'Ada',
      lastName: 'Example',
      enabled: true,
      attributes: { subscription_tier: ['professional'] },
    });
    const before = await admin.users.findOne({ id });
    const principal = principalOf(id, 'professional', 'ada');
    const key = randomKey();
    await instance.keys.add(principal, { provider: 'openai', key, label: null, endpoint: null }, 'r1');
    const pools = await instance.keys.readPools(`user:${id}`);
    expect(pools.get('openai')?.map((each) => each.open()?.secret)).toEqual([key]);

    const during = await admin.users.findOne({ id });
    const { byok_openai: values, ...others } = during?.attributes as Record<string, string[]>;
    expect(values).toHaveLength(1);
    expect({ ...during, attributes: others }).toEqual(before);

    await instance.keys.remove(principal, 'openai', undefined, 'r2');
    expect(await admin.users.findOne({ id })).toEqual(before);
  });

  it('counts nobody as an owner of a record who never added a key', async () => {
    const admin = await adminClient(realm);
    const { id } = await admin.users.create({ username: 'keyless', enabled: true });
    expect(await instance.keys.listKeys(principalOf(id).user)).toEqual([]);
    const owner = `user:${id}`;
    const rows = await instance.database.withOwner(owner, (sql) =>
      sql.rows(z.object({}), 'SELECT FROM owners'),
    );
    expect(rows).toEqual([]);
  });

  it('makes no user for a person who is not there', async () => {
    const principal = principalOf();
    const add = instance.keys.add(
      principal,
      { provider: 'openai', key: randomKey(), label: null, endpoint: null },
      'r1',
    );
    await expect(add).rejects.toMatchObject({ code: 'keycloak_unavailable' });
    const admin = await adminClient(realm);
    expect(await admin.users.find({ search: principal.user.id })).toEqual([]);
  });
});
