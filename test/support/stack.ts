import KcAdminClient from '@keycloak/keycloak-admin-client';
import { randomBytes, randomUUID } from 'node:crypto';
import pg from 'pg';
import { signInAsBootstrapAdmin, webClientAddresses } from '../../src/dev/quickstart/keycloak/realm-setup.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { evidence } from './evidence.ts';
import { withDatabase, type ServersInUse } from './test-servers.ts';

export interface ClientCredentials {
  id: string;
  secret: string;
}

/** The servers of this run. Everything here is real; the data is thrown away after the run. */
export interface TestStack {
  keycloak: {
    url: string;
    realm: 'ops-center';
    vaultRealm: 'ops-center-vault';
    serviceClient: ClientCredentials;
    vaultClient: ClientCredentials;
    webClient: ClientCredentials;
  };
}

const servers = readServers();

export const stack: TestStack = {
  keycloak: {
    url: servers.keycloakUrl,
    realm: 'ops-center',
    vaultRealm: 'ops-center-vault',
    serviceClient: { id: 'ops-center-service', secret: servers.serviceSecret },
    vaultClient: { id: 'ops-center-vault', secret: servers.vaultSecret },
    webClient: { id: 'ops-center-web', secret: servers.webSecret },
  },
};

/** Keycloak's admin interface as its bootstrap admin, who may do everything. @param realm default `ops-center` */
export async function adminClient(realm: string = stack.keycloak.realm): Promise<KcAdminClient> {
  const signIn = () => signInAsBootstrapAdmin(stack.keycloak.url, servers.adminPassword);
  const admin = await signIn();
  let signedIn = { token: admin.accessToken, atMs: Date.now() };
  // A sign-in that is left alone ends, and its refresh token with it; a slow test goes on with a new one.
  admin.registerTokenProvider({
    async getAccessToken() {
      if (Date.now() - signedIn.atMs > SIGN_IN_AGAIN_MS)
        signedIn = { token: (await signIn()).accessToken, atMs: Date.now() };
      return signedIn.token;
    },
  });
  admin.setConfig({ realmName: realm });
  return admin;
}

/** Half of the time that Keycloak's access tokens are good for, unless told otherwise. */
const SIGN_IN_AGAIN_MS = 30_000;

/** A migrated, empty database of the caller's own (50 ms). It goes away with the run. */
export async function createDatabase(): Promise<{ appUrl: string; ownerUrl: string }> {
  const name = `test_${randomBytes(8).toString('hex')}`;
  evidence.recordDatabase(name);
  await asSuperuser(
    `CREATE DATABASE ${name} OWNER ops_center_owner TEMPLATE ${servers.template} STRATEGY wal_log`,
  );
  return { appUrl: withDatabase(servers.appUrl, name), ownerUrl: withDatabase(servers.ownerUrl, name) };
}

/** Cuts every connection to a database and refuses new ones until the returned function is called. */
export async function blockDatabase(url: string): Promise<() => Promise<void>> {
  const name = new URL(url).pathname.slice(1);
  await asSuperuser(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS false`);
  await asSuperuser(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${name}'`);
  return () => asSuperuser(`ALTER DATABASE ${name} WITH ALLOW_CONNECTIONS true`);
}

export interface TestUser {
  id: string;
  username: string;
  password: string;
  email: string;
}

/** A user of the main realm with a random name, so that tests do not meet. */
export async function createUser(
  options: { tier?: Tier; enabled?: boolean; username?: string } = {},
): Promise<TestUser> {
  const username = options.username ?? `user-${randomBytes(6).toString('hex')}`;
  const password = randomBytes(9).toString('base64url');
  evidence.registerSecret('password', password);
  const email = `${username}@test.example`;
  const admin = await adminClient();
  const { id } = await admin.users.create({
    ...{ username, email, emailVerified: true, firstName: 'Test', lastName: 'User' },
    enabled: options.enabled ?? true,
    attributes: { subscription_tier: [options.tier ?? 'free'] },
    credentials: [{ type: 'password', value: password, temporary: false }],
  });
  return { id, username, password, email };
}

/** A copy of `ops-center-web` for one test app: the redirect, post-logout and back-channel addresses are its own. */
export async function createWebClient(publicUrl: string): Promise<ClientCredentials> {
  const admin = await adminClient();
  const [original] = await admin.clients.find({ clientId: stack.keycloak.webClient.id });
  if (original === undefined) throw new Error('the realm has no web client');
  const credentials = {
    id: `web-${randomBytes(6).toString('hex')}`,
    secret: randomBytes(24).toString('base64url'),
  };
  const { protocolMappers = [], ...rest } = original;
  delete rest.id;
  await admin.clients.create({
    ...rest,
    ...webClientAddresses(original.attributes, publicUrl, publicUrl),
    protocolMappers: protocolMappers.map((mapper) => ({ ...mapper, id: randomUUID() })),
    clientId: credentials.id,
    secret: credentials.secret,
  });
  return credentials;
}

async function asSuperuser(text: string): Promise<void> {
  const client = new pg.Client({ connectionString: servers.superuserUrl });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

function readServers(): ServersInUse {
  const text = process.env['OPS_TEST_SERVERS'];
  if (text === undefined) throw new Error('the test servers are started by jest: run `npm test -- <path>`');
  const found = JSON.parse(text) as ServersInUse;
  evidence.registerSecret('password', found.adminPassword);
  for (const url of [found.superuserUrl, found.ownerUrl, found.appUrl])
    evidence.registerSecret('password', decodeURIComponent(new URL(url).password));
  return found;
}
