import type KcAdminClient from '@keycloak/keycloak-admin-client';
import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { randomBytes } from 'node:crypto';
import type { Principal } from '../../src/http/principal.ts';
import { evidence } from '../support/evidence.ts';
import { adminClient, createDatabase, stack, type ClientCredentials } from '../support/stack.ts';
import { createPrincipal, randomEncryptionKey, type InstanceOptions } from './instance.ts';

/** A realm in which people are their own vault records: one realm for both, as an operator may choose. */
export interface OneRealm {
  name: string;
  admin: KcAdminClient;
  /** For an instance of the key service that keeps keys there, on a database of its own. */
  options: InstanceOptions;
  /** A client that may write people and not see events. */
  clientWithoutEvents: ClientCredentials;
  /** A client with which people sign in by password alone. */
  signInClient: string;
  createUser(): Promise<RealmUser>;
  readUser(id: string): Promise<UserRepresentation>;
  /** Saves a person as the console does: all of it as it was `loaded`, with the changes. */
  saveUser(id: string, changes: UserRepresentation, loaded?: UserRepresentation): Promise<void>;
  remove(): Promise<void>;
}

export interface RealmUser {
  id: string;
  username: string;
  password: string;
  principal: Principal;
}

export async function createOneRealm(): Promise<OneRealm> {
  const name = `people-${randomBytes(6).toString('hex')}`;
  const admin = await adminClient(name);
  const [client, blindClient] = [newClient('vault'), newClient('blind')];
  await admin.realms.create({
    realm: name,
    enabled: true,
    bruteForceProtected: true,
    // An update that leaves out the user name is refused then.
    editUsernameAllowed: true,
    adminEventsEnabled: true,
    eventsEnabled: true,
    enabledEventTypes: ['UPDATE_PROFILE'],
    clients: [
      ...[client, blindClient].map(({ id, secret }) => ({
        ...{ clientId: id, secret, enabled: true, publicClient: false },
        ...{ standardFlowEnabled: false, serviceAccountsEnabled: true },
      })),
      { clientId: 'sign-in', enabled: true, publicClient: true, directAccessGrantsEnabled: true },
    ],
    users: [
      serviceAccount(client.id, ['manage-users', 'view-events']),
      serviceAccount(blindClient.id, ['manage-users']),
    ],
  });
  const profile = await admin.users.getProfile({ realm: name });
  await admin.users.updateProfile({
    ...profile,
    realm: name,
    unmanagedAttributePolicy: 'ADMIN_EDIT' as never,
  });
  const { appUrl } = await createDatabase();
  const read = async (id: string) => (await admin.users.findOne({ id })) ?? {};
  return {
    ...{ name, admin, clientWithoutEvents: blindClient, signInClient: 'sign-in', readUser: read },
    options: {
      databaseUrl: appUrl,
      keycloakUrl: stack.keycloak.url,
      realm: name,
      client,
      encryptionKeys: [randomEncryptionKey()],
      recordIsUser: true,
    },
    createUser: () => createRealmUser(admin),
    async saveUser(id, changes, loaded) {
      const { userProfileMetadata: _metadata, ...found } = loaded ?? (await read(id));
      const attributes = { ...found.attributes, ...changes.attributes } as Record<string, string[]>;
      await admin.users.update({ id }, { ...found, ...changes, attributes });
    },
    // A client that signed in long ago may have to sign in again.
    remove: async () => (await adminClient()).realms.del({ realm: name }),
  };
}

async function createRealmUser(admin: KcAdminClient): Promise<RealmUser> {
  const username = `ada-${randomBytes(6).toString('hex')}`;
  const password = randomBytes(9).toString('base64url');
  evidence.registerSecret('password', password);
  const { id } = await admin.users.create({
    ...{ username, email: `${username}@example.test`, emailVerified: true, enabled: true },
    ...{ firstName: 'Ada', lastName: 'Example' },
    attributes: { subscription_tier: ['professional'] },
    credentials: [{ type: 'password', value: password, temporary: false }],
  });
  return { id, username, password, principal: createPrincipal(id, 'professional', username) };
}

function newClient(id: string): ClientCredentials {
  return { id, secret: randomBytes(24).toString('hex') };
}

function serviceAccount(clientId: string, roles: string[]): UserRepresentation {
  return {
    username: `service-account-${clientId}`,
    enabled: true,
    serviceAccountClientId: clientId,
    clientRoles: { 'realm-management': roles },
  };
}
