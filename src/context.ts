import path from 'node:path';
import { auditRoutes } from './audit/routes.ts';
import type { Config } from './config.ts';
import {
  createConnections,
  refusePending,
  refuseSeeingAll,
  type Address,
  type Connections,
} from './connections.ts';
import { assertRealmFit } from './doctor/realm-check.ts';
import { createGateway, type Gateway } from './gateway/service.ts';
import { createMetrics, type Metrics } from './health/metrics.ts';
import { createReadiness, type Readiness } from './health/readiness.ts';
import { healthRoutes } from './health/routes.ts';
import { homeRoutes } from './home/routes.ts';
import { createHostCheck } from './http/host-check.ts';
import type { Gate, Route } from './http/routes.ts';
import { createIdentity, type Identity } from './identity/service.ts';
import { checkCanary } from './keys/custody/canary.ts';
import { createOwnerRemoval, type OwnerRemoval } from './keys/custody/removal.ts';
import { createKeyReader, OWNERS_CHANNEL } from './keys/key-reader.ts';
import { createKeyTester } from './keys/key-tester.ts';
import { keyRoutes } from './keys/routes.ts';
import { createKeyService, type KeyService } from './keys/service.ts';
import { createVaultEvents } from './keys/vault-events.ts';
import { checkVaultPlace } from './keys/vault-place.ts';
import { createHops, type Hops } from './lib/hop.ts';
import { randomId } from './lib/ids.ts';
import { createLog, type Log } from './lib/log.ts';
import { createLoop, type Loop } from './lib/loop.ts';
import { runMigrations } from './lib/migrations.ts';
import { createNotifications, type Notifications } from './lib/notifications.ts';
import { userOwner } from './lib/owner.ts';
import { createRunners } from './runners/index.ts';
import { runRoutes } from './runs/routes.ts';
import { createRunService } from './runs/service.ts';
import { serverRoutes } from './servers/routes.ts';
import { createServerService } from './servers/service.ts';

/** What a test or the quick start may put in the place of what the configuration would build. */
export interface ContextOverrides {
  log?: Log;
  /** Addresses of this installation beyond those in the configuration, e.g. Keycloak's management port. */
  ownAddresses?: readonly Address[];
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

const REQUEST_CONNECTIONS = 16;
const READ_EVENTS_EVERY_MS = 2_000;

/** The only place that builds things. Nothing is connected and nothing listens before `start`. */
export function createContext(config: Config, overrides: ContextOverrides = {}): Context {
  const log = overrides.log ?? createLog(config.logLevel);
  const connections = createConnections(config, {
    applicationName: 'ops-center',
    maxConnections: REQUEST_CONNECTIONS,
    ownAddresses: overrides.ownAddresses ?? [],
    log,
  });
  const { database, people } = connections;
  const hops = createHops(config.sessionSecret);
  const { keys, notices, vaultEvents, removal } = createKeys(config, connections, hops, log);
  const identity = createIdentity({
    config,
    database,
    keyring: connections.keyring,
    keycloakAdmin: people,
    onUserDeleted: async (userId) => {
      const requestId = `deletion-${randomId()}`;
      await runs.removeUser(userId);
      await servers.removeOwner(userId, requestId, 'system:keycloak');
      await removal.removeOwner(userOwner(userId), requestId, 'system:keycloak');
    },
    log,
  });
  const gateway = createGatewayFrom(config, connections, hops, identity, keys);
  const local = config.localExecution ? { hiddenPaths: hiddenPaths(config) } : undefined;
  const runners = createRunners({ dialer: connections.dialer, log, local });
  const { keyring } = connections;
  const { localExecution, liveWork } = identity;
  const servers = createServerService({ database, keyring, runners, localExecution, liveWork, log });
  const runs = createRunService({
    ...{ database, keyring, identity, servers, log },
    databaseUrl: config.databaseUrl,
    settings: config.runs,
  });
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
      ...serverRoutes({ servers }),
      ...runRoutes({ runs, liveWork }),
      ...auditRoutes({ database }),
      ...gateway.routes,
    ],
    readiness,
    isDraining: () => draining,
    async start() {
      if (config.migrationDatabaseUrl !== undefined)
        await migrate(config.migrationDatabaseUrl, config.databaseUrl, log);
      await refusePending(database);
      await refuseSeeingAll(database);
      await assertRealmFit({ config, people, vault: connections.records });
      await checkVaultPlace(database, connections.place);
      await checkCanary(connections);
      await Promise.all([notices.start(), vaultEvents.start(), identity.start(), runs.start()]);
    },
    async drain() {
      draining = true;
      await runs.drain();
      await finishWithin(identity, config.timeouts.shutdownGraceMs);
      await gateway.settled();
    },
    async close() {
      await Promise.all([notices.stop(), vaultEvents.stop(), identity.stop(), runs.stop()]);
      // In reverse: what Docker keeps on an engine behind SSH is removed through SSH's connections.
      for (const runner of [...runners.values()].reverse()) await runner.close();
      await connections.close();
    },
  };
}

interface Keys {
  keys: KeyService;
  /** What other processes tell of owners' keys. */
  notices: Notifications;
  /** What administrators do to vault records. */
  vaultEvents: Loop;
  removal: OwnerRemoval;
}

function createKeys(config: Config, connections: Connections, hops: Hops, log: Log): Keys {
  const { database, lock, vault, place, records, keyring, dialer, providers } = connections;
  const upstreams = { overrides: config.upstreams };
  const notices = createNotifications({ url: config.databaseUrl, channel: OWNERS_CHANNEL, log });
  const reader = createKeyReader({ database, vault, providers, notices, log });
  const tester = createKeyTester({ dialer, hops, upstreams });
  const readVaultEvents = createVaultEvents({ keycloak: records, database, reader, log });
  const name = 'reading the events of the vault';
  return {
    keys: createKeyService({
      ...{ database, reader, lock, vault, keyring, providers },
      ...{ upstreams, dialer, tester, log },
    }),
    notices,
    vaultEvents: createLoop(name, READ_EVENTS_EVERY_MS, readVaultEvents, log),
    removal: createOwnerRemoval({ lock, vault, recordIsUser: place.recordIsUser }),
  };
}

function createGatewayFrom(
  config: Config,
  connections: Connections,
  hops: Hops,
  identity: Identity,
  keys: KeyService,
): Gateway {
  const { apiKey, ...system } = config.systemDefault;
  return createGateway({
    keys,
    directory: identity.directory,
    liveWork: identity.liveWork,
    dialer: connections.dialer,
    providers: connections.providers,
    upstreams: { overrides: config.upstreams },
    system: apiKey === undefined ? null : { ...system, apiKey },
    timeouts: config.timeouts,
    hops,
    maskSecret: config.sessionSecret,
  });
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

/** What no program that is run on this machine may see: the product, what it keeps, and its secrets. */
function hiddenPaths({ dataDir, secretFiles }: Config): string[] {
  return [path.join(import.meta.dirname, '..'), dataDir, '.env', ...secretFiles];
}

async function migrate(ownerUrl: string, appUrl: string, log: Log): Promise<void> {
  const names = await runMigrations({ ownerUrl, appRole: decodeURIComponent(new URL(appUrl).username) });
  if (names.length > 0) log.info({ event: 'migrated', migrations: names }, 'migrations were run');
}
