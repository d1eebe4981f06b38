import { z } from 'zod';
import type { Config } from './config/config.ts';
import type { KeyClients } from './keys/admin/deps.ts';
import { createOwnerLock } from './keys/owner-lock.ts';
import type { VaultLocation } from './keys/vault-location.ts';
import { createVault } from './keys/vault.ts';
import { createDatabase, type Database } from './lib/postgres/database.ts';
import { createDialer, type Dialer } from './lib/net/dialer.ts';
import { UnfitError } from './lib/errors.ts';
import { createKeycloakAdmin, type KeycloakAdmin } from './lib/keycloak/keycloak-admin.ts';
import { createKeyring } from './lib/crypto/keyring.ts';
import type { Log } from './lib/log.ts';
import { listPendingMigrations } from './lib/postgres/migrations.ts';
import { PROVIDERS } from './providers/index.ts';

export interface OwnService {
  host: string;
  port: number;
}

/** What the app and the commands both stand on. */
export interface Clients extends KeyClients {
  dialer: Dialer;
  /** Keycloak's admin interface as another client, in another realm. */
  createRealmAdmin(realm: string, client: { id: string; secret: string }): KeycloakAdmin;
  close(): Promise<void>;
}

export interface ClientsOptions {
  /** How the database shows these connections. */
  applicationName: string;
  /** Database connections at most, those of writers apart. */
  maxConnections: number;
  /** The longest that a call to Keycloak may take; its own default unless given. */
  keycloakTimeoutMs?: number;
  /** Addresses of this installation beyond those in the configuration. */
  ownServices?: readonly OwnService[];
  log: Log;
}

/** Writers who wait for an owner's lock must not take the connections that requests need. */
const MAX_LOCK_CONNECTIONS = 4;
const MAX_WRITE_MS = 20_000;

/** Builds them; nothing is connected before it is used. */
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
  });
  const vaultKeycloak = createRealmAdmin(keycloak.vaultRealm, keycloak.vault);
  const vaultLocation = toVaultLocation(config);
  return {
    database,
    lock: createOwnerLock({ database: lockDatabase, slots: MAX_LOCK_CONNECTIONS, timeoutMs: MAX_WRITE_MS }),
    usersKeycloak: createRealmAdmin(keycloak.realm, keycloak.service),
    vaultKeycloak,
    vault: createVault({ keycloak: vaultKeycloak, recordIsUser: vaultLocation.recordIsUser, log }),
    vaultLocation,
    dialer,
    keyring: createKeyring(config.encryptionKeys),
    // The demo provider exists in local mode only.
    providers: PROVIDERS.filter((provider) => config.mode === 'local' || !provider.localOnly),
    createRealmAdmin,
    async close() {
      await Promise.all([dialer.close(), database.close(), lockDatabase.close()]);
    },
  };
}

const NameRow = z.object({ name: z.string() });

/** @throws UnfitError naming the migrations that are pending. */
export async function assertMigrated(database: Database): Promise<void> {
  const pending = await listPendingMigrations((text) => database.rows(NameRow, text));
  if (pending.length === 0) return;
  throw new UnfitError(
    `The database lacks ${pending.join(', ')}. Set MIGRATION_DATABASE_URL, or run "npm run ops -- migrate".`,
  );
}

/**
 * Row-level security keeps owners apart; it does not hold for whoever owns a table, for superusers, nor for roles
 * that bypass it, and they would see everybody's rows. Tables that name an owner count even where it was switched off.
 * @throws UnfitError naming the tables whose rows the app would see all of.
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
    `The role of DATABASE_URL sees the rows of all people in ${tables}: row-level security does not hold for it. ` +
      'Give the app a role that is a member of ops_center_app, owns no table, is no superuser and has no ' +
      'BYPASSRLS; the owner of the schema belongs in MIGRATION_DATABASE_URL alone.',
  );
}

/** With one realm for both, a person's keys lie with the person. */
function toVaultLocation({ keycloak }: Config): VaultLocation {
  return { realm: keycloak.vaultRealm, recordIsUser: keycloak.vaultRealm === keycloak.realm };
}

/** What users' endpoints must never reach: our own listeners, the database, Keycloak. */
function listOwnServices(config: Config): OwnService[] {
  const listeners = [config.port, config.metricsPort].map((port) => ({ host: config.host, port }));
  const urls = [config.publicUrl, config.internalUrl, config.keycloak.url, config.keycloak.internalUrl];
  const services = [...urls, config.databaseUrl, config.migrationDatabaseUrl].filter(
    (url) => url !== undefined,
  );
  return [...listeners, ...services.map(toOwnService)];
}

const DEFAULT_PORTS: Record<string, number> = { 'http:': 80, 'https:': 443 };

/** The settings give a database's address its port. */
function toOwnService(text: string): OwnService {
  const url = new URL(text);
  return {
    host: url.hostname,
    port: url.port === '' ? (DEFAULT_PORTS[url.protocol] ?? 0) : Number(url.port),
  };
}
