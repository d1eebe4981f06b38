import { z } from 'zod';
import type { Config } from './config.ts';
import { assertRealmFit } from './doctor/realm-check.ts';
import { createGateway, type Gateway } from './gateway/service.ts';
import { createMetrics, type Metrics } from './health/metrics.ts';
import { createReadiness, type Readiness } from './health/readiness.ts';
import { healthRoutes } from './health/routes.ts';
import { homeRoutes } from './home/routes.ts';
import { createHostCheck } from './http/host-check.ts';
import type { Gate, Route } from './http/routes.ts';
import { createIdentity, type Identity } from './identity/service.ts';
import { createOwnerLock } from './keys/owner-lock.ts';
import { keyRoutes } from './keys/routes.ts';
import { createKeyService, type KeyService } from './keys/service.ts';
import { checkVaultPlace, type VaultPlace } from './keys/vault-place.ts';
import { createVault } from './keys/vault.ts';
import { createDatabase, type Database } from './lib/database.ts';
import { createDialer, type Dialer } from './lib/dialer.ts';
import { createKeycloakAdmin, type KeycloakAdmin } from './lib/keycloak-admin.ts';
import { createKeyring, type Keyring } from './lib/keyring.ts';
import { createLog, type Log } from './lib/log.ts';
import { pendingMigrations, runMigrations } from './lib/migrations.ts';
import { PROVIDERS } from './providers/index.ts';
import { UnfitError } from './lib/errors.ts';

/** What a test or the quick start may put in the place of what the configuration would build. */
export interface ContextOverrides {
  log?: Log;
  /** Addresses of this installation beyond those in the configuration, e.g. Keycloak's management port. */
  ownAddresses?: readonly Address[];
}

interface Address {
  host: string;
  port: number;
}

/** Everything that the application is made of, built once. */
export interface Context {
  config: Config;
  log: Log;
  metrics: Metrics;
  hostCheck: ReturnType<typeof createHostCheck>;
  gate: Gate;
  routes: readonly Route[];
  readiness(): Promise<Readiness>;
  isDraining(): boolean;
  /**
   * Migrates the database where the owner's role is configured, and starts what runs beside requests.
   * @throws Error naming the migrations that are pending otherwise.
   */
  start(): Promise<void>;
  /** Refuses new requests, lets streams finish for the grace period, then ends them with an error event. */
  drain(): Promise<void>;
  /** Closes all connections. */
  close(): Promise<void>;
}

/** Writers who wait for an owner's lock must not take the connections that requests need. */
const LOCK_CONNECTIONS = 4;
const REQUEST_CONNECTIONS = 16;
const LONGEST_WRITE_MS = 20_000;

/** The only place that builds things. Nothing is connected and nothing listens before `start`. */
export function createContext(config: Config, overrides: ContextOverrides = {}): Context {
  const log = overrides.log ?? createLog(config.logLevel);
  const connections = createConnections(config, overrides, log);
  const { database, people } = connections;
  const identity = createIdentity({
    config,
    database,
    keyring: connections.keyring,
    keycloakAdmin: people,
    log,
  });
  const keys = createKeys(config, connections, log);
  const gateway = createGatewayFrom(config, connections, identity, keys);
  const metrics = createMetrics();
  let draining = false;
  const readiness = createReadiness(
    [
      { name: 'database', check: async () => void (await database.run('SELECT 1')) },
      { name: 'migrations', check: () => refusePending(database) },
      { name: 'keycloak', check: () => people.ping() },
    ],
    () => draining,
  );
  const home = homeRoutes({
    authenticate: identity.gate.authenticate,
    explainRoute: (user) => gateway.explainRoute(user),
    publicUrl: config.publicUrl,
    keycloakUrl: config.keycloak.url,
    cookieName: config.sessionCookieName,
    isLocal: config.mode === 'local',
  });
  return {
    config,
    log,
    metrics,
    hostCheck: createHostCheck(config),
    gate: identity.gate,
    routes: [
      ...healthRoutes(readiness),
      ...home,
      ...identity.routes,
      ...keyRoutes({ keys }),
      ...gateway.routes,
    ],
    readiness,
    isDraining: () => draining,
    async start() {
      if (config.migrationDatabaseUrl !== undefined)
        await migrate(config.migrationDatabaseUrl, config.databaseUrl, log);
      await refusePending(database);
      await assertRealmFit({ config, people, vault: connections.vault });
      await checkVaultPlace(database, vaultPlace(config));
      await identity.start();
    },
    async drain() {
      draining = true;
      await finishWithin(identity, config.timeouts.shutdownGraceMs);
      await gateway.settled();
    },
    async close() {
      await identity.stop();
      await connections.close();
    },
  };
}

interface Connections {
  database: Database;
  lockDatabase: Database;
  people: KeycloakAdmin;
  vault: KeycloakAdmin;
  dialer: Dialer;
  keyring: Keyring;
  close(): Promise<void>;
}

function createConnections(config: Config, overrides: ContextOverrides, log: Log): Connections {
  const { keycloak } = config;
  const database = createDatabase({
    url: config.databaseUrl,
    max: REQUEST_CONNECTIONS,
    applicationName: 'ops-center',
    log,
  });
  const lockDatabase = createDatabase({
    url: config.databaseUrl,
    max: LOCK_CONNECTIONS,
    applicationName: 'ops-center-lock',
    log,
  });
  const admin = (realm: string, client: { id: string; secret: string }) =>
    createKeycloakAdmin({
      baseUrl: keycloak.internalUrl,
      realm,
      clientId: client.id,
      clientSecret: client.secret,
    });
  const forbidden = [...ownAddresses(config), ...(overrides.ownAddresses ?? [])];
  const dialer = createDialer({
    mode: config.mode,
    allow: config.egress.allow,
    deny: config.egress.deny,
    forbidden: () => forbidden,
    connectTimeoutMs: config.timeouts.connectMs,
  });
  return {
    database,
    lockDatabase,
    people: admin(keycloak.realm, keycloak.service),
    vault: admin(keycloak.vaultRealm, keycloak.vault),
    dialer,
    keyring: createKeyring(config.encryptionKeys),
    async close() {
      await Promise.all([dialer.close(), database.close(), lockDatabase.close()]);
    },
  };
}

function createKeys(config: Config, connections: Connections, log: Log): KeyService {
  const { database, lockDatabase, vault, keyring, dialer } = connections;
  return createKeyService({
    database,
    lock: createOwnerLock({ database: lockDatabase, slots: LOCK_CONNECTIONS, totalMs: LONGEST_WRITE_MS }),
    vault: createVault({
      keycloak: vault,
      recordIsUser: vaultPlace(config).recordIsUser,
      log,
    }),
    keyring,
    providers: providersOf(config),
    dialer,
    log,
  });
}

/** With one realm for both, a person's keys lie with the person. */
function vaultPlace({ keycloak }: Config): VaultPlace {
  return { realm: keycloak.vaultRealm, recordIsUser: keycloak.vaultRealm === keycloak.realm };
}

function createGatewayFrom(
  config: Config,
  connections: Connections,
  identity: Identity,
  keys: KeyService,
): Gateway {
  const { apiKey, ...system } = config.systemDefault;
  return createGateway({
    keys,
    directory: identity.directory,
    liveWork: identity.liveWork,
    dialer: connections.dialer,
    providers: providersOf(config),
    upstreams: { overrides: config.upstreams },
    system: apiKey === undefined ? null : { ...system, apiKey },
    timeouts: config.timeouts,
    hopSecret: config.sessionSecret,
  });
}

/** The demo provider exists in local mode only. */
function providersOf(config: Config) {
  return PROVIDERS.filter((provider) => config.mode === 'local' || !provider.localOnly);
}

/** What users' endpoints must never reach: our own listeners, the database, Keycloak. */
function ownAddresses(config: Config): Address[] {
  const listeners = [config.port, config.metricsPort].map((port) => ({ host: config.host, port }));
  const urls = [config.publicUrl, config.internalUrl, config.keycloak.url, config.keycloak.internalUrl];
  const services = [...urls, config.databaseUrl, config.migrationDatabaseUrl].filter(
    (url) => url !== undefined,
  );
  return [...listeners, ...services.map(addressOf)];
}

const DEFAULT_PORTS: Record<string, number> = {
  'http:': 80,
  'https:': 443,
  'postgres:': 5432,
  'postgresql:': 5432,
};

function addressOf(text: string): Address {
  const url = new URL(text);
  return {
    host: url.hostname,
    port: url.port === '' ? (DEFAULT_PORTS[url.protocol] ?? 0) : Number(url.port),
  };
}

async function finishWithin(identity: Identity, graceMs: number): Promise<void> {
  const { liveWork } = identity;
  let timer: NodeJS.Timeout | undefined;
  const grace = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([liveWork.idle(), grace]);
  clearTimeout(timer);
  await liveWork.drain();
}

const NameRow = z.object({ name: z.string() });

async function refusePending(database: Database): Promise<void> {
  const pending = await pendingMigrations((text) => database.rows(NameRow, text));
  if (pending.length === 0) return;
  throw new UnfitError(
    `The database lacks ${pending.join(', ')}. Set MIGRATION_DATABASE_URL, or run "npm run ops -- migrate".`,
  );
}

async function migrate(ownerUrl: string, appUrl: string, log: Log): Promise<void> {
  const names = await runMigrations({ ownerUrl, appRole: decodeURIComponent(new URL(appUrl).username) });
  if (names.length > 0) log.info({ event: 'migrated', migrations: names }, 'migrations were run');
}
