import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { listVaultRecords, listRealmUsers } from '../../../src/keys/admin/list-records.ts';
import { createKeycloakAdmin } from '../../../src/lib/keycloak/keycloak-admin.ts';
import { adminClient, stack } from '../../support/stack.ts';
import { createRealms, emptyRealm, type Realms } from './fixture.ts';

let realms: Realms;
let realm: string;

beforeAll(async () => {
  realms = await createRealms(1);
  realm = realms.vaults[0] ?? '';
}, 120_000);
afterAll(() => realms.drop(), 60_000);

const createClient = () =>
  createKeycloakAdmin({
    baseUrl: stack.keycloak.url,
    realm,
    clientId: 'ops-center-vault',
    clientSecret: realms.secret,
    timeoutMs: 30_000,
  });

/** Creates users. Returns their names in Keycloak's list order. */
async function createMany(count: number): Promise<string[]> {
  const admin = await adminClient(realm);
  const usernames = Array.from({ length: count }, (_, at) => `user.${String(at).padStart(4, '0')}`);
  const users = usernames.map((username) => ({
    username,
    enabled: false,
    attributes: { owner: [`user:${randomUUID()}`], byok_openai: ['a value'] },
  }));
  await admin.realms.partialImport({ realm, rep: { ifResourceExists: 'FAIL', users } });
  return usernames;
}

it('lists every user once over several pages', async () => {
  await emptyRealm(realm);
  const usernames = await createMany(130);
  const seen: string[] = [];
  for await (const { username = '', attributes } of listRealmUsers(createClient())) {
    seen.push(username);
    expect(attributes).toMatchObject({ byok_openai: ['a value'] });
  }
  expect(seen.toSorted()).toEqual(usernames);
}, 60_000);

it.each([1, 60])(
  'lists every user when %i of the listed ones are deleted during the listing',
  async (count) => {
    await emptyRealm(realm);
    const usernames = await createMany(130);
    const seen: string[] = [];
    const ids: string[] = [];
    for await (const { id = '', username = '' } of listRealmUsers(createClient())) {
      seen.push(username);
      ids.push(id);
      if (seen.length !== 100) continue;
      const admin = await adminClient(realm);
      for (const deletedId of ids.slice(-count)) await admin.users.del({ id: deletedId });
    }
    expect(seen.toSorted()).toEqual(usernames);
  },
  60_000,
);

it('lists only vault records, with an undefined owner where none is named', async () => {
  await emptyRealm(realm);
  const admin = await adminClient(realm);
  const owner = `user:${randomUUID()}`;
  const create = (username: string, attributes: Record<string, string[]>) =>
    admin.users.create({ username, enabled: false, attributes });
  await create('user.a', { owner: [owner], owner_name: ['ann'], byok_openai: ['x'], byok_openai_key: ['y'] });
  await create('user.b', { byok_openai: ['x'] });
  await create('other-user', { note: ['no record'] });
  const found: unknown[] = [];
  for await (const { owner: named, ownerName, values } of listVaultRecords(createClient(), false))
    found.push([named, ownerName, [...values.keys()]]);
  expect(found).toEqual([
    [owner, 'ann', ['openai']],
    [undefined, '', ['openai']],
  ]);
});

it('refuses a client that may not list users with the name of the realm', async () => {
  const admin = await adminClient(realm);
  const clientId = `without-roles-${randomUUID()}`;
  await admin.clients.create({
    clientId,
    secret: realms.secret,
    publicClient: false,
    serviceAccountsEnabled: true,
    standardFlowEnabled: false,
  });
  const withoutRoles = createKeycloakAdmin({
    baseUrl: stack.keycloak.url,
    realm,
    clientId,
    clientSecret: realms.secret,
  });
  await expect(listRealmUsers(withoutRoles).next()).rejects.toMatchObject({
    code: 'keycloak_unavailable',
    detail: `Keycloak responded with status 403 to a request for the users of realm "${realm}".`,
  });
});
