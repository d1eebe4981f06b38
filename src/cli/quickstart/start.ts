import { randomBytes } from 'node:crypto';
import path from 'node:path';
import type { Environment } from '../../config.ts';
import { aborted } from '../signals.ts';
import { startDemoUpstream, type DemoUpstream } from '../../demo-upstream/server.ts';
import { readDemo, type Demo } from '../../doctor/demo-users.ts';
import { createLog } from '../../lib/log.ts';
import { startServer, type RunningServer } from '../../server.ts';
import { openAppLog, type AppLog } from './app-log.ts';
import { startOwnKeycloak } from './keycloak-choice.ts';
import type { RunningKeycloak } from './keycloak.ts';
import { choosePort } from './ports.ts';
import { startPostgres, type RunningPostgres } from './postgres.ts';
import type { RunSteps, Step } from './progress.ts';
import { addDemo, setWebClientAddresses, signInAsBootstrapAdmin } from './realm-setup.ts';
import type { Secrets } from './secrets.ts';
import { readSettings, withoutEmpty, layOver } from '../settings.ts';
import { demoSettings, startedSettings, type Plan } from './plan.ts';

export interface Start {
  environment: Environment;
  plan: Plan;
  dataDir: string;
  secrets: Secrets;
  runSteps: RunSteps;
  print: (text: string) => void;
  /** Aborted when the start is to be given up. */
  stop: AbortSignal;
}

/** What has been started so far, filled in as it comes up, so that it can be stopped at any point. */
export interface Running {
  postgres?: RunningPostgres;
  keycloak?: RunningKeycloak;
  demoUpstream?: DemoUpstream;
  server?: RunningServer;
  log?: AppLog;
  demo?: Demo;
  /** The settings that the app was given. */
  settings?: Environment;
}

/** Brings everything up, the servers at the same time. @throws when a part does not come up; the others then run on. */
export async function startEverything(start: Start, running: Running): Promise<void> {
  const { config } = start.plan;
  const port = String(await choosePort(config.port, 'PORT', config.host));
  const metricsPort = String(await choosePort(config.metricsPort, 'METRICS_PORT', config.host));
  // With PORT=0 the addresses are known only now.
  const addresses = config.port === 0 ? addressesOn(port, start.environment) : config;
  await startServers(start, running, { publicUrl: addresses.publicUrl, internalUrl: addresses.internalUrl });
  start.stop.throwIfAborted();
  const settings = layOver(start.environment, {
    ...startedSettings(running, start.secrets),
    PORT: port,
    METRICS_PORT: metricsPort,
    PUBLIC_URL: addresses.publicUrl,
    INTERNAL_URL: addresses.internalUrl,
  });
  running.settings = settings;
  await start.runSteps([{ title: 'Ops Center', run: (note) => bringUpApp(start, running, settings, note) }]);
}

/** The app first, so that its streams can finish on working servers. */
const STOP_ORDER = [
  ['server', 'Ops Center'],
  ['demoUpstream', 'the demo upstream'],
  ['keycloak', 'Keycloak'],
  ['postgres', 'Postgres'],
] as const;

/** Stops what runs, in order. A part that does not stop is told of and does not keep the others running. */
export async function stopEverything(
  running: Running,
  options: { print: (text: string) => void; hurry: AbortSignal },
): Promise<void> {
  const hurried = aborted(options.hurry);
  for (const [part, name] of STOP_ORDER) {
    const found = running[part];
    if (found === undefined) continue;
    options.print(`Stopping ${name}`);
    const stopped = part === 'server' ? Promise.race([found.stop(), hurried]) : found.stop();
    await stopped.catch((error: unknown) => {
      options.print(`${name} did not stop: ${error instanceof Error ? error.message : String(error)}`);
    });
  }
  await running.log?.close();
}

type Addresses = Record<'publicUrl' | 'internalUrl', string>;

function addressesOn(port: string, environment: Environment): Addresses {
  const publicUrl = `http://localhost:${port}`;
  return { publicUrl, internalUrl: withoutEmpty(environment)['INTERNAL_URL'] ?? publicUrl };
}

/** Starts Postgres and Keycloak side by side. When one fails the other is given up, and its end awaited. */
async function startServers(start: Start, running: Running, addresses: Addresses): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([start.stop, failed.signal]);
  const work: Promise<void>[] = [];
  const step = (title: string, run: Step['run']): Step => ({
    title,
    run: (note) => {
      const done = run(note);
      work.push(done);
      return done;
    },
  });
  const steps = [
    ...(start.plan.postgres ? [step('Postgres', (note) => bringUpPostgres(start, running, note))] : []),
    ...(start.plan.keycloak
      ? [step('Keycloak', (note) => bringUpKeycloak(start, running, addresses, signal, note))]
      : []),
  ];
  try {
    await start.runSteps(steps);
  } catch (error) {
    failed.abort();
    await Promise.allSettled(work);
    throw error;
  }
}

async function bringUpPostgres(start: Start, running: Running, note: (text: string) => void): Promise<void> {
  const { dataDir, secrets, plan } = start;
  running.postgres = await startPostgres({ dataDir, secrets, port: plan.postgresPort, durable: true, note });
}

async function bringUpKeycloak(
  start: Start,
  running: Running,
  addresses: Addresses,
  signal: AbortSignal,
  note: (text: string) => void,
): Promise<void> {
  const { dataDir, secrets, plan, environment } = start;
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
  await addDemo(admin, realm, running.demo);
  await setWebClientAddresses(admin, realm, { clientId: web.id, ...addresses });
}

async function bringUpApp(
  start: Start,
  running: Running,
  settings: Environment,
  note: (text: string) => void,
): Promise<void> {
  if (start.plan.demoUpstream) {
    running.demoUpstream = await startDemoUpstream();
    const key = `demo-${randomBytes(16).toString('hex')}`;
    Object.assign(settings, demoSettings(running.demoUpstream.url, key, start.plan.demoIsDefault));
  }
  note('migrating the database and listening');
  const config = readSettings(settings);
  running.log = await openAppLog(path.join(start.dataDir, 'app.log'), start.print);
  running.server = await startServer(config, {
    log: createLog(config.logLevel, running.log.stream),
    ownAddresses: ownListeners(running),
  });
}

/** Listeners of ours that no setting names; users' endpoints must not lead there. */
function ownListeners({ keycloak, demoUpstream }: Running): { host: string; port: number }[] {
  const ports = [keycloak?.managementPort, demoUpstream && Number(new URL(demoUpstream.url).port)];
  const known = ports.flatMap((port) => (port === undefined ? [] : [{ host: '127.0.0.1', port }]));
  return [...known, ...(keycloak?.listeners ?? [])];
}
