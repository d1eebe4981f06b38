import { randomBytes } from 'node:crypto';
import path from 'node:path';
import type { Environment } from '../../config/config.ts';
import { endOnFatalError } from '../../cli/fatal-errors.ts';
import { whenAborted } from '../../cli/signals.ts';
import { startDemoUpstream, type DemoUpstream } from '../demo-upstream/server.ts';
import { readDemo, type Demo } from '../../lib/keycloak/demo-users.ts';
import type { HostAndPort } from '../../lib/net/addresses.ts';
import { createLog } from '../../lib/log.ts';
import type { LogStream } from '../../lib/log-stream.ts';
import { startServer, type RunningServer } from '../../server.ts';
import { openAppLog } from './app-log.ts';
import { startOwnKeycloak } from './keycloak/runtime.ts';
import type { RunningKeycloak } from './keycloak/keycloak.ts';
import { choosePorts } from './ports.ts';
import { startPostgres, type RunningPostgres } from './postgres/postgres.ts';
import { buildPage } from './page.ts';
import type { RunSteps, ProgressStep } from './progress.ts';
import { addDemoData, setWebClientAddresses, signInAsBootstrapAdmin } from './keycloak/realm-setup.ts';
import type { Secrets } from './secrets.ts';
import { loadConfig, dropEmptySettings, overrideSettings } from '../../cli/settings.ts';
import { toDemoSettings, toStackSettings, type StartPlan } from './plan.ts';

export interface StackOptions {
  environment: Environment;
  plan: StartPlan;
  dataDir: string;
  secrets: Secrets;
  runSteps: RunSteps;
  print: (text: string) => void;
  /** Cancels the start when aborted. */
  stop: AbortSignal;
}

/** Started parts. Each is added when it is ready, so that an incomplete start can be stopped too. */
export interface RunningStack {
  postgres?: RunningPostgres;
  keycloak?: RunningKeycloak;
  demoUpstream?: DemoUpstream;
  server?: RunningServer;
  log?: LogStream;
  demo?: Demo;
  /** Settings of the app. */
  settings?: Environment;
}

/** Starts the servers in parallel, then the app. @throws if a part fails to start; the others keep running then. */
export async function startStack(options: StackOptions, running: RunningStack): Promise<void> {
  const { config } = options.plan;
  const [port = '', metricsPort = ''] = (await chooseAppPorts(options.plan)).map(String);
  // With PORT=0 the addresses are known only after the port is chosen.
  const addresses = config.port === 0 ? toAddresses(port, options.environment) : config;
  await startServers(options, running, {
    publicUrl: addresses.publicUrl,
    internalUrl: addresses.internalUrl,
  });
  options.stop.throwIfAborted();
  const settings = overrideSettings(options.environment, {
    ...toStackSettings(running, options.secrets),
    PORT: port,
    METRICS_PORT: metricsPort,
    PUBLIC_URL: addresses.publicUrl,
    INTERNAL_URL: addresses.internalUrl,
  });
  running.settings = settings;
  await options.runSteps([
    { title: 'Ops Center', run: (note) => startAppStep(options, running, settings, note) },
  ]);
}

/** @returns PORT and METRICS_PORT. */
function chooseAppPorts({ config, ...plan }: StartPlan): Promise<number[]> {
  const { host } = config;
  return choosePorts(
    [
      { requested: config.port, variable: 'PORT', host },
      { requested: config.metricsPort, variable: 'METRICS_PORT', host },
    ],
    [
      ...(plan.postgres ? [{ requested: plan.postgresPort, variable: 'POSTGRES_PORT' }] : []),
      ...(plan.keycloak ? [{ requested: plan.keycloakPort, variable: 'KEYCLOAK_PORT' }] : []),
    ],
  );
}

/** The app is stopped first, so that its streams can finish while the servers still run. */
const STOP_ORDER = [
  ['server', 'Ops Center'],
  ['demoUpstream', 'the demo upstream'],
  ['keycloak', 'Keycloak'],
  ['postgres', 'Postgres'],
] as const;

/** Stops all parts in order. Prints a message if a part does not stop, and continues with the next. */
export async function stopStack(
  running: RunningStack,
  options: { print: (text: string) => void; force: AbortSignal },
): Promise<void> {
  const forced = whenAborted(options.force);
  for (const [part, name] of STOP_ORDER) {
    const target = running[part];
    if (target === undefined) continue;
    options.print(`Stopping ${name}`);
    const stopped = part === 'server' ? Promise.race([target.stop(), forced]) : target.stop();
    await stopped.catch((error: unknown) => {
      options.print(`${name} did not stop: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
  await running.log?.close();
}

type Addresses = Record<'publicUrl' | 'internalUrl', string>;

function toAddresses(port: string, environment: Environment): Addresses {
  const publicUrl = `http://localhost:${port}`;
  return { publicUrl, internalUrl: dropEmptySettings(environment)['INTERNAL_URL'] ?? publicUrl };
}

/** Starts Postgres and Keycloak in parallel. If one fails, cancels the other and waits until it has ended. */
async function startServers(
  options: StackOptions,
  running: RunningStack,
  addresses: Addresses,
): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([options.stop, failed.signal]);
  const work: Promise<void>[] = [];
  const step = (title: string, run: ProgressStep['run']): ProgressStep => ({
    title,
    run: (note) => {
      const done = run(note);
      work.push(done);
      return done;
    },
  });
  const steps = [
    step('Page', buildPage),
    ...(options.plan.postgres ? [step('Postgres', (note) => startPostgresStep(options, running, note))] : []),
    ...(options.plan.keycloak
      ? [step('Keycloak', (note) => startKeycloakStep(options, running, addresses, signal, note))]
      : []),
  ];
  try {
    await options.runSteps(steps);
  } catch (error) {
    failed.abort();
    await Promise.allSettled(work);
    throw error;
  }
}

async function startPostgresStep(
  options: StackOptions,
  running: RunningStack,
  note: (text: string) => void,
): Promise<void> {
  const { dataDir, secrets, plan } = options;
  running.postgres = await startPostgres({ dataDir, secrets, port: plan.postgresPort, durable: true, note });
}

async function startKeycloakStep(
  options: StackOptions,
  running: RunningStack,
  addresses: Addresses,
  signal: AbortSignal,
  note: (text: string) => void,
): Promise<void> {
  const { dataDir, secrets, plan, environment } = options;
  const port = plan.keycloakPort;
  running.keycloak = await startOwnKeycloak({
    dataDir,
    secrets,
    port,
    environment,
    signal,
    note,
    ...addresses,
  });
  note('adding the demo users');
  const admin = await signInAsBootstrapAdmin(running.keycloak.internalUrl, secrets.get('keycloak-admin'));
  running.demo = await readDemo();
  const { realm, web } = plan.config.keycloak;
  await addDemoData(admin, realm, running.demo);
  await setWebClientAddresses(admin, realm, { clientId: web.id, ...addresses });
}

async function startAppStep(
  options: StackOptions,
  running: RunningStack,
  settings: Environment,
  note: (text: string) => void,
): Promise<void> {
  if (options.plan.demoUpstream) {
    running.demoUpstream = await startDemoUpstream();
    const key = `demo-${randomBytes(16).toString('hex')}`;
    Object.assign(settings, toDemoSettings(running.demoUpstream.url, key, options.plan.demoIsDefault));
  }
  note('migrating the database and listening');
  const config = loadConfig(settings);
  running.log = openAppLog(path.join(options.dataDir, 'app.log'), options.print);
  const log = createLog(config.logLevel, running.log);
  endOnFatalError(log, options.print);
  running.server = await startServer(config, {
    log,
    ownServices: listOwnListeners(running),
  });
}

/** Listeners of the stack that no setting names. Users' endpoints must not reach them. */
function listOwnListeners({ keycloak, demoUpstream }: RunningStack): HostAndPort[] {
  const ports = [keycloak?.managementPort, demoUpstream && Number(new URL(demoUpstream.url).port)];
  const known = ports.flatMap((port) => (port === undefined ? [] : [{ host: '127.0.0.1', port }]));
  return [...known, ...(keycloak?.listeners ?? [])];
}
