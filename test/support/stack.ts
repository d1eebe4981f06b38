import KcAdminClient from '@keycloak/keycloak-admin-client';
import { randomBytes, randomUUID } from 'node:crypto';
import { signInAsBootstrapAdmin, webClientAddresses } from '../../src/dev/quickstart/keycloak/realm-setup.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { evidence } from './evidence.ts';
import { repeatOnce } from './repeat-once.ts';
import { servers } from './servers-in-use.ts';

export interface ClientCredentials {
  id: string;
  secret: string;
}

/** The real servers of this run. Their data is deleted after the run. */
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

/** Keycloak's admin API as the bootstrap admin, who has all rights. @param realm default `ops-center` */
export async function adminClient(realm: string = stack.keycloak.realm): Promise<KcAdminClient> {
  await getAdminToken();
  const admin = new KcAdminClient({ baseUrl: stack.keycloak.url, realmName: realm, timeout: 30_000 });
  admin.registerTokenProvider({ getAccessToken: getAdminToken });
  return repeatOnce(admin);
}

/** All clients of a test file share one sign-in. An unused session expires, so a slow test signs in again. */
async function getAdminToken(): Promise<string | undefined> {
  if (adminSignIn === undefined || Date.now() - adminSignIn.atMs > SIGN_IN_AGAIN_MS)
    adminSignIn = {
      client: signInAsBootstrapAdmin(stack.keycloak.url, servers.adminPassword),
      atMs: Date.now(),
    };
  return (await adminSignIn.client).accessToken;
}

let adminSignIn: { client: Promise<KcAdminClient>; atMs: number } | undefined;

/** Half of the default lifetime of Keycloak's access tokens. */
const SIGN_IN_AGAIN_MS = 30_000;

export interface TestUser {
  id: string;
  username: string;
  password: string;
  email: string;
}

/** Creates a user of the main realm with a random name, so that tests do not interfere. */
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

/** Creates a copy of `ops-center-web` for one test app, with the app's redirect, post-logout and back-channel addresses. */
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
