import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { webClientAddresses } from '../../src/dev/quickstart/keycloak/realm-setup.ts';
import type { Environment } from '../../src/config/config.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { startApp, type TestApp } from '../support/app.ts';
import { evidence } from '../support/evidence.ts';
import { toCheapRealm } from '../support/cheap-realm.ts';
import { adminClient, createUser, stack, type ClientCredentials, type TestUser } from '../support/stack.ts';
import type { VaultView } from '../support/vault-record.ts';

/** Where keys may be stored. The suites of this folder run over both. */
export const LAYOUTS = ['a separate realm for keys', 'one realm for users and keys'] as const;
export type Layout = (typeof LAYOUTS)[number];

/** A running app with its realms and an administrator's access to them. */
export interface Installation {
  layout: Layout;
  app: TestApp;
  /** The user realm. */
  realm: string;
  /** The vault realm; the same as `realm` in the guide's layout. */
  vaultRealm: string;
  service: ClientCredentials;
  vault: ClientCredentials;
  /** Creates a user with a random name. */
  createUser(tier?: Tier): Promise<TestUser>;
  /** A user's vault record as an administrator sees it. @throws Error when there is none. */
  readRecord(user: Pick<TestUser, 'id'>): Promise<VaultView>;
  /** Saves the record with some attributes replaced, as the console does. */
  editRecord(user: Pick<TestUser, 'id'>, change: Record<string, string[]>): Promise<void>;
  /** Lets users sign in at another app on the same realms. Does nothing where each app has its own web client. */
  pointWebClientAt(app: Pick<TestApp, 'url'>): Promise<void>;
  stop(): Promise<void>;
}

/** @param env settings beyond those that every test app has. */
export async function install(layout: Layout, env: Environment = {}): Promise<Installation> {
  return layout === 'one realm for users and keys' ? installInOneRealm(env) : installInTwoRealms(env);
}

async function installInTwoRealms(env: Environment): Promise<Installation> {
  const { realm, vaultRealm, serviceClient, vaultClient } = stack.keycloak;
  const app = await startApp({ env });
  return {
    layout: 'a separate realm for keys',
    app,
    realm,
    vaultRealm,
    service: serviceClient,
    vault: vaultClient,
    createUser: (tier = 'starter') => createUser({ tier }),
    ...recordsIn(vaultRealm, async ({ id }) => {
      const admin = await adminClient(vaultRealm);
      const [found] = await admin.users.find({ username: `user.${id}`, exact: true });
      return found?.id;
    }),
    pointWebClientAt: () => Promise.resolve(),
    stop: () => app.stop(),
  };
}

/** A copy of the shipped user realm, prepared to hold keys as in `keycloak/README.md`. */
async function installInOneRealm(env: Environment): Promise<Installation> {
  const realm = `one-realm-${randomBytes(6).toString('hex')}`;
  const [web, service, vault] = ['web', 'service', 'vault'].map((name) => ({
    id: `ops-center-${name}`,
    secret: randomBytes(24).toString('base64url'),
  })) as [ClientCredentials, ClientCredentials, ClientCredentials];
  await createRealm(realm, { web, service, vault });
  const app = await startApp({
    env: {
      KEYCLOAK_REALM: realm,
      KEYCLOAK_VAULT_REALM: realm,
      KEYCLOAK_WEB_CLIENT_ID: web.id,
      KEYCLOAK_WEB_CLIENT_SECRET: web.secret,
      KEYCLOAK_SERVICE_CLIENT_SECRET: service.secret,
      KEYCLOAK_VAULT_CLIENT_SECRET: vault.secret,
      ...env,
    },
  });
  await pointWebClient(realm, web.id, app.url);
  return {
    layout: 'one realm for users and keys',
    app,
    realm,
    vaultRealm: realm,
    service,
    vault,
    createUser: (tier = 'starter') => createRealmUser(realm, tier),
    ...recordsIn(realm, ({ id }) => Promise.resolve(id)),
    pointWebClientAt: ({ url }) => pointWebClient(realm, web.id, url),
    async stop() {
      await app.stop();
      await (await adminClient()).realms.del({ realm });
    },
  };
}

const RealmFile = z.looseObject({
  clients: z.array(z.looseObject({})),
  users: z.array(z.looseObject({})),
});

async function createRealm(
  realm: string,
  secrets: Record<'web' | 'service' | 'vault', ClientCredentials>,
): Promise<void> {
  const read = (file: string) =>
    RealmFile.parse(
      JSON.parse(
        readFileSync(`keycloak/${file}`, 'utf8')
          .replaceAll('${KEYCLOAK_WEB_CLIENT_SECRET}', secrets.web.secret)
          .replaceAll('${KEYCLOAK_SERVICE_CLIENT_SECRET}', secrets.service.secret)
          .replaceAll('${KEYCLOAK_VAULT_CLIENT_SECRET}', secrets.vault.secret)
          .replaceAll(/\$\{(PUBLIC|INTERNAL)_URL\}/g, 'http://localhost:1'),
      ),
    );
  const [main, vault] = [read('ops-center-realm.json'), read('ops-center-vault-realm.json')];
  const admin = await adminClient();
  await admin.realms.create(
    toCheapRealm({
      ...main,
      realm,
      clients: [...main.clients, ...vault.clients],
      users: [...main.users, ...vault.users],
    }),
  );
  const fresh = await adminClient();
  const profile = await fresh.users.getProfile({ realm });
  await fresh.users.updateProfile({ ...profile, realm, unmanagedAttributePolicy: 'ADMIN_EDIT' as never });
}

async function pointWebClient(realm: string, clientId: string, publicUrl: string): Promise<void> {
  const admin = await adminClient(realm);
  const [client] = await admin.clients.find({ clientId });
  if (client?.id === undefined) throw new Error('the realm has no web client');
  await admin.clients.update(
    { id: client.id },
    { ...client, ...webClientAddresses(client.attributes, publicUrl, publicUrl) },
  );
}

async function createRealmUser(realm: string, tier: Tier): Promise<TestUser> {
  const username = `user-${randomBytes(6).toString('hex')}`;
  const password = randomBytes(9).toString('base64url');
  evidence.registerSecret('password', password);
  const email = `${username}@test.example`;
  const admin = await adminClient(realm);
  const { id } = await admin.users.create({
    ...{ username, email, emailVerified: true, firstName: 'Test', lastName: 'User', enabled: true },
    attributes: { subscription_tier: [tier] },
    credentials: [{ type: 'password', value: password, temporary: false }],
  });
  return { id, username, password, email };
}

const Attributes = z.record(z.string(), z.array(z.string()));

function recordsIn(
  realm: string,
  findId: (user: Pick<TestUser, 'id'>) => Promise<string | undefined>,
): Pick<Installation, 'readRecord' | 'editRecord'> {
  async function getId(user: Pick<TestUser, 'id'>): Promise<string> {
    const id = await findId(user);
    if (id === undefined) throw new Error(`${user.id} has no record`);
    return id;
  }
  return {
    async readRecord(user) {
      const id = await getId(user);
      const found = await (await adminClient(realm)).users.findOne({ id });
      return { id, attributes: Attributes.parse(found?.attributes) };
    },
    async editRecord(user, change) {
      const id = await getId(user);
      const admin = await adminClient(realm);
      const { userProfileMetadata: _metadata, ...stored } = (await admin.users.findOne({ id })) ?? {};
      await admin.users.update({ id }, { ...stored, attributes: { ...stored.attributes, ...change } });
    },
  };
}
