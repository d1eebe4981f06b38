import type KcAdminClient from '@keycloak/keycloak-admin-client';
import type UserRepresentation from '@keycloak/keycloak-admin-client/lib/defs/userRepresentation.js';
import { randomBytes } from 'node:crypto';
import type { Principal } from '../../src/http/principal.ts';
import { evidence } from '../support/evidence.ts';
import { createDatabase } from '../support/database.ts';
import { toCheapRealm } from '../support/cheap-realm.ts';
import { adminClient, stack, type ClientCredentials } from '../support/stack.ts';
import { createPrincipal, randomEncryptionKey, type InstanceOptions } from './instance.ts';

/** A realm that holds users and keys: the user is the vault record (the layout with one realm). */
export interface OneRealm {
  name: string;
  admin: KcAdminClient;
  /** Options for instances of the key service that store keys in this realm, on a new database. */
  options: InstanceOptions;
  /** A client that may update users but not view events. */
  clientWithoutEvents: ClientCredentials;
  /** A client for sign-in by password (direct access grants). */
  signInClient: string;
  createUser(): Promise<RealmUser>;
  readUser(id: string): Promise<UserRepresentation>;
  /** Saves a user as the admin console does: the whole representation as `loaded`, with the changes. */
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
  const name = `one-realm-${randomBytes(6).toString('hex')}`;
  const admin = await adminClient(name);
  const [client, clientWithoutEvents] = [newClient('vault'), newClient('blind')];
  const realm = {
    realm: name,
    enabled: true,
    bruteForceProtected: true,
    // With this setting an update that omits the user name is refused.
    editUsernameAllowed: true,
    adminEventsEnabled: true,
    eventsEnabled: true,
    enabledEventTypes: ['UPDATE_PROFILE'],
    clients: [
      ...[client, clientWithoutEvents].map(({ id, secret }) => ({
        ...{ clientId: id, secret, enabled: true, publicClient: false },
        ...{ standardFlowEnabled: false, serviceAccountsEnabled: true },
      })),
      { clientId: 'sign-in', enabled: true, publicClient: true, directAccessGrantsEnabled: true },
    ],
    users: [
      serviceAccount(client.id, ['manage-users', 'view-events']),
      serviceAccount(clientWithoutEvents.id, ['manage-users']),
    ],
  };
  await admin.realms.create(toCheapRealm(realm));
  const profile = await admin.users.getProfile({ realm: name });
  await admin.users.updateProfile({
    ...profile,
    realm: name,
    unmanagedAttributePolicy: 'ADMIN_EDIT' as never,
  });
  const { appUrl } = await createDatabase();
  const readUser = async (id: string) => (await admin.users.findOne({ id })) ?? {};
  return {
    ...{ name, admin, clientWithoutEvents, signInClient: 'sign-in', readUser },
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
      const { userProfileMetadata: _metadata, ...found } = loaded ?? (await readUser(id));
      const attributes = { ...found.attributes, ...changes.attributes } as Record<string, string[]>;
      await admin.users.update({ id }, { ...found, ...changes, attributes });
    },
    // The token of the earlier client may have expired.
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
