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

const listing = () =>
  createKeycloakAdmin({
    baseUrl: stack.keycloak.url,
    realm,
    clientId: 'ops-center-vault',
    clientSecret: realms.secret,
    timeoutMs: 30_000,
  });

/** Users in the order in which Keycloak lists them. */
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

it('a walk over users sees everybody once, also where there are several pages', async () => {
  await emptyRealm(realm);
  const usernames = await createMany(130);
  const seen: string[] = [];
  for await (const { username = '', attributes } of listRealmUsers(listing())) {
    seen.push(username);
    expect(attributes).toMatchObject({ byok_openai: ['a value'] });
  }
  expect(seen.toSorted()).toEqual(usernames);
}, 60_000);

it.each([1, 60])(
  'a walk over users passes nobody over when %i of those it has seen are deleted meanwhile',
  async (count) => {
    await emptyRealm(realm);
    const usernames = await createMany(130);
    const seen: string[] = [];
    const ids: string[] = [];
    for await (const { id = '', username = '' } of listRealmUsers(listing())) {
      seen.push(username);
      ids.push(id);
      if (seen.length !== 100) continue;
      const admin = await adminClient(realm);
      for (const gone of ids.slice(-count)) await admin.users.del({ id: gone });
    }
    expect(seen.toSorted()).toEqual(usernames);
  },
  60_000,
);

it('a walk over records leaves out who is none, and says which name no owner', async () => {
  await emptyRealm(realm);
  const admin = await adminClient(realm);
  const owner = `user:${randomUUID()}`;
  const create = (username: string, attributes: Record<string, string[]>) =>
    admin.users.create({ username, enabled: false, attributes });
  await create('user.a', { owner: [owner], owner_name: ['ann'], byok_openai: ['x'], byok_openai_key: ['y'] });
  await create('user.b', { byok_openai: ['x'] });
  await create('somebody', { note: ['no record'] });
  const found: unknown[] = [];
  for await (const { owner: named, ownerName, values } of listVaultRecords(listing(), false))
    found.push([named, ownerName, [...values.keys()]]);
  expect(found).toEqual([
    [owner, 'ann', ['openai']],
    [undefined, '', ['openai']],
  ]);
});

it('a client that may not list users is told which realm refused it', async () => {
  const admin = await adminClient(realm);
  const clientId = `powerless-${randomUUID()}`;
  await admin.clients.create({
    clientId,
    secret: realms.secret,
    publicClient: false,
    serviceAccountsEnabled: true,
    standardFlowEnabled: false,
  });
  const powerless = createKeycloakAdmin({
    baseUrl: stack.keycloak.url,
    realm,
    clientId,
    clientSecret: realms.secret,
  });
  await expect(listRealmUsers(powerless).next()).rejects.toMatchObject({
    code: 'keycloak_unavailable',
    detail: `Keycloak answered 403 when asked for the users of realm "${realm}".`,
  });
});
