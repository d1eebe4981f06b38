import path from 'node:path';
import { aboutRoutes } from './about/routes.ts';
import { describeInstallation } from './about/service.ts';
import { auditRoutes } from './audit/routes.ts';
import { pruneAuditEvents } from './audit/service.ts';
import type { Config } from './config/config.ts';
import { createClients, assertMigrated, assertRowSecurity, type Clients } from './clients.ts';
import { createDoctor } from './doctor/service.ts';
import { createGateway, type Gateway } from './gateway/service.ts';
import { createHealth, type Health } from './health/service.ts';
import { createHostGuard } from './http/host-guard.ts';
import type { RouteGuards, Route } from './http/route.ts';
import { createIdempotency, type Idempotency } from './idempotency/service.ts';
import { createIdentity, type Identity } from './identity/service.ts';
import { keyRoutes } from './keys/routes.ts';
import { createKeyService, type KeyService } from './keys/service.ts';
import type { HostAndPort } from './lib/net/addresses.ts';
import { createLoopGuard, type LoopGuard } from './lib/net/loop-guard.ts';
import { randomId } from './lib/ids.ts';
import { createLog, type Log } from './lib/log.ts';
import { runMigrations } from './lib/postgres/migrations.ts';
import { userOwner } from './lib/owner.ts';
import { onboardingRoutes } from './onboarding/routes.ts';
import { createOnboarding, type Onboarding } from './onboarding/service.ts';
import { BUILD_DIRECTORY, pageRoutes, type UnknownPathHandler } from './page/routes.ts';
import { createRunners } from './runners/index.ts';
import { runRoutes } from './runs/routes.ts';
import { createRunService, type RunService } from './runs/service.ts';
import { serverRoutes } from './servers/routes.ts';
import { createServerService, type ServerService } from './servers/service.ts';
import { tokenRoutes } from './tokens/routes.ts';
import { createTokenService, type TokenService } from './tokens/service.ts';
import { usageRoutes } from './usage/routes.ts';
import { createUsageService, type UsageRecorder, type UsageService } from './usage/service.ts';

/** Replacements by a test or the quick start for parts that the configuration determines. */
export interface ContextOverrides {
  log?: Log;
  /** Services of this installation that the configuration does not name, e.g. Keycloak's management port. */
  ownServices?: readonly HostAndPort[];
}

/** All parts of the application. */
export interface Context {
  config: Config;
  log: Log;
  metrics: Health['metrics'];
  hostGuard: ReturnType<typeof createHostGuard>;
  guards: RouteGuards;
  routes: readonly Route[];
  /** Serves the page to a browser that opens an address which no route has. */
  serveUnknownPath: UnknownPathHandler;
  readiness: Health['readiness'];
  isDraining(): boolean;
  /**
   * Runs pending migrations if the schema owner's role is configured, checks the installation and starts background
   * work.
   * @throws UnfitError naming what the operator must change, such as pending migrations.
   */
  start(): Promise<void>;
  /** Refuses new requests, lets streams finish for the grace period, then ends them with an error event. */
  drain(): Promise<void>;
  /** Closes all connections. */
  close(): Promise<void>;
}

const MAX_REQUEST_CONNECTIONS = 16;

/** Wires all parts. Nothing connects or listens before `start`. */
export function createContext(config: Config, overrides: ContextOverrides = {}): Context {
  const log = overrides.log ?? createLog(config.logLevel);
  const clients = createClients(config, {
    applicationName: 'ops-center',
    maxConnections: MAX_REQUEST_CONNECTIONS,
    ownServices: overrides.ownServices ?? [],
    log,
  });
  const features = createFeatures(config, clients, log, (count) => health.metrics.countDroppedUsage(count));
  const { identity, keys, gateway, runs, runners, usage } = features;
  const { database, usersKeycloak: mainAdmin, vaultKeycloak: vaultAdmin } = clients;
  const doctor = createDoctor(config, { mainAdmin, vaultAdmin });
  let draining = false;
  const health = createHealth(
    [
      { name: 'database', check: async () => void (await database.run('SELECT 1')) },
      { name: 'migrations', check: () => assertMigrated(database) },
      { name: 'keycloak', check: () => mainAdmin.ping() },
    ],
    () => draining,
  );
  const page = createPage(config);
  return {
    config,
    log,
    metrics: health.metrics,
    hostGuard: createHostGuard(config),
    guards: identity.guards,
    routes: [
      ...health.routes,
      ...page.routes,
      ...aboutRoutes({ config, identity, doctor }),
      ...listFeatureRoutes(clients, features),
    ],
    serveUnknownPath: page.serveUnknownPath,
    readiness: health.readiness,
    isDraining: () => draining,
    async start() {
      await prepareDatabase(config, log);
      await assertMigrated(database);
      await assertRowSecurity(database);
      await doctor.assertRealmsValid();
      await keys.assertFit();
      await Promise.all([
        clients.notifications.start(),
        keys.start(),
        identity.start(),
        runs.start(),
        usage.start(),
        features.idempotency.start(),
      ]);
    },
    async drain() {
      draining = true;
      await runs.drain();
      await waitForActiveWork(identity, config.timeouts.shutdownGraceMs);
      await gateway.flush();
    },
    async close() {
      await Promise.all([
        keys.stop(),
        identity.stop(),
        runs.stop(),
        features.tokens.flush(),
        usage.stop(),
        features.idempotency.stop(),
      ]);
      // In reverse order: Docker removes its objects on an engine behind SSH through the SSH runner's connections.
      for (const runner of [...runners.values()].reverse()) await runner.close();
      await clients.close();
    },
  };
}

interface Features {
  idempotency: Idempotency;
  tokens: TokenService;
  identity: Identity;
  keys: KeyService;
  gateway: Gateway;
  servers: ServerService;
  runs: RunService;
  runners: ReturnType<typeof createRunners>;
  usage: UsageService;
  onboarding: Onboarding;
}

function createFeatures(
  config: Config,
  clients: Clients,
  log: Log,
  onDroppedUsage: (count: number) => void,
): Features {
  const { database, keyring, notifications } = clients;
  const loopGuard = createLoopGuard(config.sessionSecret);
  const upstreams = { overrides: config.upstreams };
  const keys = createKeyService({ ...clients, upstreams, loopGuard, log });
  const idempotency = createIdempotency({ database, keyring, secret: config.sessionSecret, log });
  const tokens = createTokenService({ database, notifications, log });
  const identity = createIdentity({
    config,
    database,
    keyring,
    personalTokens: tokens,
    notifications,
    keycloakAdmin: clients.usersKeycloak,
    serverConnections: {
      userIds: () => servers.listConnectedUserIds(),
      close: (userId) => servers.closeUserConnections(userId),
    },
    onUserDeleted: async (userId) => {
      const requestId = `deletion-${randomId()}`;
      await tokens.removeUser(userId, requestId, 'system:keycloak');
      await usage.removeUser(userId);
      await runs.removeUser(userId);
      await gateway.removeUser(userId);
      await idempotency.removeUser(userId);
      await onboarding.removeUser(userId);
      await servers.removeUser(userId, requestId, 'system:keycloak');
      await keys.removeOwner(userOwner(userId), requestId, 'system:keycloak');
    },
    log,
  });
  const { usageDays } = config;
  const usage = createUsageService({ database, log, usageDays, onDropped: onDroppedUsage });
  const gateway = createGatewayFrom(config, clients, loopGuard, identity, keys, usage.recorder);
  const local = config.localExecution
    ? { hiddenPaths: hiddenPaths(config), ceilings: config.localCeilings }
    : undefined;
  const runners = createRunners({ dialer: clients.dialer, log, local });
  const { localExecution, activeWork } = identity;
  const servers = createServerService({ database, keyring, runners, localExecution, activeWork, log });
  const runs = createRunService({
    ...{ database, notifications, keyring, identity, servers, log },
    settings: config.runs,
  });
  const onboarding = createOnboarding({ database, keys, servers, runs, usage });
  return { idempotency, tokens, identity, keys, gateway, servers, runs, runners, usage, onboarding };
}

function listFeatureRoutes({ database }: Clients, features: Features): Route[] {
  const { tokens, identity, keys, gateway, servers, runs, usage, idempotency } = features;
  return [
    ...identity.routes,
    ...tokenRoutes({ tokens, idempotency }),
    ...keyRoutes({ keys, idempotency }),
    ...serverRoutes({ servers, idempotency }),
    ...runRoutes({ runs, activeWork: identity.activeWork, idempotency }),
    ...auditRoutes({ database }),
    ...usageRoutes({ usage }),
    ...onboardingRoutes({ onboarding: features.onboarding }),
    ...gateway.routes,
  ];
}

function createPage(config: Config): ReturnType<typeof pageRoutes> {
  const { mode, version, realm, account_url } = describeInstallation(config);
  return pageRoutes({
    buildDirectory: BUILD_DIRECTORY,
    keycloakUrl: config.keycloak.url,
    settings: { mode, version, realm, account_url },
  });
}

function createGatewayFrom(
  config: Config,
  clients: Clients,
  loopGuard: LoopGuard,
  identity: Identity,
  keys: KeyService,
  usage: UsageRecorder,
): Gateway {
  const { apiKey, ...system } = config.systemDefault;
  return createGateway({
    database: clients.database,
    keys,
    userCache: identity.userCache,
    activeWork: identity.activeWork,
    dialer: clients.dialer,
    providers: clients.providers,
    upstreams: { overrides: config.upstreams },
    system: apiKey === undefined ? null : { ...system, apiKey },
    timeouts: config.timeouts,
    requestsPerUser: config.requestsPerUser,
    loopGuard,
    idempotencySecret: config.sessionSecret,
    usage,
  });
}

async function waitForActiveWork(identity: Identity, graceMs: number): Promise<void> {
  const { activeWork } = identity;
  let timer: NodeJS.Timeout | undefined;
  const grace = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, graceMs);
  });
  await Promise.race([activeWork.whenIdle(), grace]);
  clearTimeout(timer);
  await activeWork.drain();
}

/** Paths that are hidden from programs of users: the product, its data, and its secrets. */
function hiddenPaths({ dataDir, secretFiles }: Config): string[] {
  return [path.join(import.meta.dirname, '..'), dataDir, '.env', ...secretFiles];
}

/** What needs the role that owns the schema. A deployment gives it to the commands only. */
async function prepareDatabase(config: Config, log: Log): Promise<void> {
  const { migrationDatabaseUrl: ownerUrl, databaseUrl, auditDays, mode } = config;
  if (ownerUrl === undefined) return;
  const appRole = decodeURIComponent(new URL(databaseUrl).username);
  const names = await runMigrations({ ownerUrl, appRole });
  if (names.length > 0) log.info({ event: 'migrated', migrations: names }, 'migrations applied');
  if (mode === 'local') await pruneAuditEvents(ownerUrl, auditDays, log);
}
