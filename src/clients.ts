import { z } from 'zod';
import type { Config } from './config/config.ts';
import { createKeyStorage, type KeyStorage } from './keys/service.ts';
import { createDatabase, type Database } from './lib/postgres/database.ts';
import type { HostAndPort } from './lib/net/addresses.ts';
import { createDialer, type Dialer } from './lib/net/dialer.ts';
import { effectivePort } from './lib/net/egress.ts';
import { UnfitError } from './lib/errors.ts';
import { createKeycloakAdmin, type KeycloakAdmin } from './lib/keycloak/keycloak-admin.ts';
import { createKeyring, type Keyring } from './lib/crypto/keyring.ts';
import type { Log } from './lib/log.ts';
import { listPendingMigrations } from './lib/postgres/migrations.ts';
import {
  createNotificationListener,
  type NotificationListener,
} from './lib/postgres/notification-listener.ts';
import { PROVIDERS } from './providers/index.ts';
import type { Provider } from './providers/provider.ts';

/** The clients that the app and the commands share. */
export interface Clients extends KeyStorage {
  database: Database;
  /** The service client, in the user realm. */
  usersKeycloak: KeycloakAdmin;
  /** The vault client, in the vault realm. */
  vaultKeycloak: KeycloakAdmin;
  keyring: Keyring;
  /** The providers available in this mode. */
  providers: readonly Provider[];
  dialer: Dialer;
  /** Listens on Postgres between its `start` and the clients' `close`. */
  notifications: NotificationListener;
  /** Keycloak's admin API for another realm, with another client. */
  createRealmAdmin(realm: string, client: { id: string; secret: string }): KeycloakAdmin;
  close(): Promise<void>;
}

export interface ClientsOptions {
  /** Shown by Postgres for these connections. */
  applicationName: string;
  /** Maximum number of database connections, without those for owner locks. */
  maxConnections: number;
  /** Time limit of one request to Keycloak. Default: that of `createKeycloakAdmin`. */
  keycloakTimeoutMs?: number;
  /** Services of this installation that the configuration does not name. */
  ownServices?: readonly HostAndPort[];
  log: Log;
}

const MAX_LOCK_CONNECTIONS = 4;

/** Creates the clients. They connect on first use. */
export function createClients(config: Config, options: ClientsOptions): Clients {
  const { keycloak } = config;
  const { applicationName, maxConnections, keycloakTimeoutMs, log } = options;
  const openDatabase = (name: string, max: number) =>
    createDatabase({ url: config.databaseUrl, max, applicationName: name, log });
  const database = openDatabase(applicationName, maxConnections);
  const lockDatabase = openDatabase(`${applicationName}-lock`, MAX_LOCK_CONNECTIONS);
  const createRealmAdmin: Clients['createRealmAdmin'] = (realm, client) =>
    createKeycloakAdmin({
      baseUrl: keycloak.internalUrl,
      realm,
      clientId: client.id,
      clientSecret: client.secret,
      ...(keycloakTimeoutMs === undefined ? {} : { timeoutMs: keycloakTimeoutMs }),
    });
  const forbidden = [...listOwnServices(config), ...(options.ownServices ?? [])];
  const dialer = createDialer({
    mode: config.mode,
    allow: config.egress.allow,
    deny: config.egress.deny,
    forbidden: () => forbidden,
    connectTimeoutMs: config.timeouts.connectMs,
    onRefused: (refusal) =>
      log.info({ event: 'address_refused', ...refusal }, 'an address that a user entered is not used'),
  });
  const vaultKeycloak = createRealmAdmin(keycloak.vaultRealm, keycloak.vault);
  const keyStorage = createKeyStorage({
    database,
    vaultKeycloak,
    // With one realm for both, the user's own Keycloak user is the vault record.
    vaultLocation: { realm: keycloak.vaultRealm, recordIsUser: keycloak.vaultRealm === keycloak.realm },
    lockDatabase,
    maxLockConnections: MAX_LOCK_CONNECTIONS,
    log,
  });
  const notifications = createNotificationListener({ url: config.databaseUrl, log });
  return {
    ...keyStorage,
    database,
    usersKeycloak: createRealmAdmin(keycloak.realm, keycloak.service),
    vaultKeycloak,
    dialer,
    notifications,
    keyring: createKeyring(config.encryptionKeys),
    // The demo provider is available in local mode only.
    providers: PROVIDERS.filter((provider) => config.mode === 'local' || !provider.isLocalOnly),
    createRealmAdmin,
    async close() {
      await Promise.all([notifications.stop(), dialer.close(), database.close(), lockDatabase.close()]);
    },
  };
}

const NameRow = z.object({ name: z.string() });

/** @throws UnfitError naming the migrations that are pending. */
export async function assertMigrated(database: Database): Promise<void> {
  const pending = await listPendingMigrations((text) => database.rows(NameRow, text));
  if (pending.length === 0) return;
  throw new UnfitError(
    `The database lacks the migrations ${pending.join(', ')}. Set MIGRATION_DATABASE_URL, or run "npm run ops -- migrate".`,
  );
}

/**
 * Row-level security separates the owners' rows. It does not apply to the owner of a table, to superusers and to roles
 * with BYPASSRLS, which see all rows. Tables with an owner column are checked even if it was disabled for them.
 * @throws UnfitError naming the tables of which the app's role would see all rows.
 */
export async function assertRowSecurity(database: Database): Promise<void> {
  const unprotected = await database.rows(
    NameRow,
    `SELECT c.relname AS name FROM pg_class c
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
       AND (c.relrowsecurity OR EXISTS (
         SELECT FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname IN ('owner', 'user_id') AND NOT a.attisdropped))
       AND NOT row_security_active(c.oid)
     ORDER BY 1`,
  );
  if (unprotected.length === 0) return;
  const tables = unprotected.map(({ name }) => name).join(', ');
  throw new UnfitError(
    `The role of DATABASE_URL can read the rows of all users in ${tables}: row-level security does not apply to it. ` +
      'Give the app a role that is a member of ops_center_app, owns no table, is not a superuser and does not have ' +
      'BYPASSRLS. Use the owner of the schema in MIGRATION_DATABASE_URL only.',
  );
}

/** Services that users' endpoints must not reach: our listeners, the database, Keycloak. */
function listOwnServices(config: Config): HostAndPort[] {
  const listeners = [config.port, config.metricsPort].map((port) => ({ host: config.host, port }));
  const urls = [config.publicUrl, config.internalUrl, config.keycloak.url, config.keycloak.internalUrl];
  const services = [...urls, config.databaseUrl, config.migrationDatabaseUrl].filter(
    (url) => url !== undefined,
  );
  return [...listeners, ...services.map(toHostAndPort)];
}

/** Database addresses always have a port: `settings.ts` adds it. */
function toHostAndPort(text: string): HostAndPort {
  const url = new URL(text);
  return { host: url.hostname, port: effectivePort(url) };
}
