import type KcAdminClient from '@keycloak/keycloak-admin-client';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import pg from 'pg';
import {
  stopKeycloak,
  keycloakDataFolder,
  startKeycloak,
} from '../../src/dev/quickstart/keycloak/keycloak.ts';
import { KEYCLOAK_FOLDER } from '../../src/dev/quickstart/keycloak/archive.ts';
import { acquireLock } from '../../src/dev/quickstart/lock.ts';
import {
  stopOrphanedPostgres,
  startPostgres,
  type RunningPostgres,
} from '../../src/dev/quickstart/postgres/postgres.ts';
import { preparePostgresLocation } from '../../src/dev/quickstart/postgres/location.ts';
import { readCommandLine, isProcessRunning } from '../../src/dev/quickstart/processes.ts';
import { addDemoData, signInAsBootstrapAdmin } from '../../src/dev/quickstart/keycloak/realm-setup.ts';
import { createSecrets, writePrivateFile } from '../../src/dev/quickstart/secrets.ts';
import { readDemo } from '../../src/lib/keycloak/demo-users.ts';
import { MIGRATIONS_FOLDER, runMigrations } from '../../src/lib/postgres/migrations.ts';
import {
  ADMIN_TOKEN_ALGORITHM,
  ECDSA_KEYS,
  KEY_PROVIDER,
  PASSWORD_POLICY,
  SIGNATURE_ALGORITHM,
  toCheapClient,
} from './cheap-realm.ts';
import { stopHosts } from './host-processes.ts';
import { listHostLeaksAfterRun } from './host-leaks.ts';

/** Data of the servers for test files; passed to the workers through the environment. */
export interface ServersInUse {
  keycloakUrl: string;
  keycloakPid: number;
  adminPassword: string;
  webSecret: string;
  serviceSecret: string;
  vaultSecret: string;
  postgresPid: number;
  superuserUrl: string;
  ownerUrl: string;
  appUrl: string;
  /** A migrated database to clone. */
  template: string;
}

type Servers = Omit<ServersInUse, 'template'>;

export const TEST_DATA_DIR = path.resolve(import.meta.dirname, '..', '..', '.data', 'test');
const RUNS = path.join(TEST_DATA_DIR, 'runs');
const SERVERS_FILE = path.join(TEST_DATA_DIR, 'servers.json');

/**
 * Starts Postgres and Keycloak for this run, or uses those of another active run: two runs in one checkout share them,
 * and the last run stops them.
 * @returns when the servers and hosts of killed runs are stopped. `started` resolves when the servers are ready.
 */
export async function acquireServers(
  say: (text: string) => void,
): Promise<{ started: Promise<ServersInUse> }> {
  mkdirSync(RUNS, { recursive: true });
  const release = await lockServers();
  try {
    const running = otherRuns().length > 0 ? readRunning() : undefined;
    if (running === undefined) await stopServers();
    writeFileSync(path.join(RUNS, String(process.pid)), '');
    return { started: startOrShareServers(running, say).finally(release) };
  } catch (error) {
    release();
    throw error;
  }
}

async function startOrShareServers(
  running: Servers | undefined,
  say: (text: string) => void,
): Promise<ServersInUse> {
  try {
    const servers = running ?? (await startServers(say));
    return { ...servers, template: await ensureTemplate(servers) };
  } catch (error) {
    if (otherRuns().length === 0) await stopServers();
    throw error;
  }
}

/**
 * Ends this run's use; the last run stops the servers.
 * @param checkLeaks whether the last run checks the hosts for leaks; false after an interrupted run
 * @throws Error that names the leaks, after stopping everything
 */
export async function releaseServers(checkLeaks: boolean): Promise<void> {
  const release = await lockServers();
  try {
    rmSync(path.join(RUNS, String(process.pid)), { force: true });
    if (otherRuns().length > 0) return;
    const leaks = checkLeaks ? await listHostLeaksAfterRun() : [];
    await stopServers();
    if (leaks.length > 0)
      throw new Error(`Tests have left these objects on the hosts:\n  ${leaks.join('\n  ')}`);
  } finally {
    release();
  }
}

function lockServers(): Promise<() => void> {
  return acquireLock({
    file: path.join(TEST_DATA_DIR, 'lock'),
    waitMs: 12 * 60_000,
    busyMessage: (pid) => `Process ${pid} has held the test servers' lock for 12 minutes.`,
  });
}

/** Process ids of other active runs. Removes the files of killed runs. */
function otherRuns(): number[] {
  const pids = readdirSync(RUNS).map(Number);
  for (const pid of pids) {
    if (!isProcessRunning(pid) || !(readCommandLine(pid) ?? []).some((part) => part.includes('jest')))
      rmSync(path.join(RUNS, String(pid)), { force: true });
  }
  return readdirSync(RUNS)
    .map(Number)
    .filter((pid) => pid !== process.pid);
}

function readRunning(): Servers | undefined {
  if (!existsSync(SERVERS_FILE)) return undefined;
  const servers = JSON.parse(readFileSync(SERVERS_FILE, 'utf8')) as Servers;
  return isProcessRunning(servers.keycloakPid) && isProcessRunning(servers.postgresPid) ? servers : undefined;
}

async function startServers(say: (text: string) => void): Promise<Servers> {
  rmSync(preparePostgresLocation(TEST_DATA_DIR).folder, { recursive: true, force: true });
  const secrets = createSecrets(TEST_DATA_DIR);
  const started = await Promise.allSettled([startTestPostgres(say), startTestKeycloak(say)]);
  const failed = started.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  const [postgres, keycloak] = started.map((result) => (result as PromiseFulfilledResult<unknown>).value) as [
    RunningPostgres,
    { url: string; pid: number },
  ];
  const servers: Servers = {
    keycloakUrl: keycloak.url,
    keycloakPid: keycloak.pid,
    adminPassword: secrets.get('keycloak-admin'),
    webSecret: secrets.get('keycloak-web-client'),
    serviceSecret: secrets.get('keycloak-service-client'),
    vaultSecret: secrets.get('keycloak-vault-client'),
    postgresPid: postgres.pid,
    superuserUrl: postgres.urlFor('superuser', 'postgres'),
    ownerUrl: postgres.urlFor('owner'),
    appUrl: postgres.urlFor('app'),
  };
  writePrivateFile(SERVERS_FILE, JSON.stringify(servers));
  return servers;
}

async function stopServers(): Promise<void> {
  rmSync(SERVERS_FILE, { force: true });
  try {
    stopHosts();
  } finally {
    await Promise.all([
      stopKeycloak(TEST_DATA_DIR),
      stopOrphanedPostgres(path.join(preparePostgresLocation(TEST_DATA_DIR).folder, 'data')),
    ]);
  }
}

function startTestPostgres(say: (text: string) => void): Promise<RunningPostgres> {
  return startPostgres({
    dataDir: TEST_DATA_DIR,
    port: 0,
    secrets: createSecrets(TEST_DATA_DIR),
    durable: false,
    note: (text) => {
      say(`Postgres: ${text}`);
    },
  });
}

/** The database that test files clone: created once per version of the migrations. */
async function ensureTemplate(servers: Servers): Promise<string> {
  const template = `template_${hashOfFiles(MIGRATIONS_FOLDER)}`;
  const admin = new pg.Client({ connectionString: servers.superuserUrl });
  await admin.connect();
  try {
    const { rowCount } = await admin.query('SELECT FROM pg_database WHERE datname = $1', [template]);
    if (rowCount === 1) return template;
    const draft = `draft_${process.pid}_${Date.now()}`;
    await admin.query(`CREATE DATABASE ${draft} OWNER ops_center_owner`);
    await runMigrations({ ownerUrl: withDatabase(servers.ownerUrl, draft), appRole: 'ops_center' });
    await admin.query(`ALTER DATABASE ${draft} RENAME TO ${template}`);
    return template;
  } finally {
    await admin.end();
  }
}

/** The same server and login with another database. */
export function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

/**
 * Each run begins with freshly imported realms. They come from a copy that was made right after an import. The copy is
 * replaced when a realm file changes.
 */
async function startTestKeycloak(say: (text: string) => void) {
  const state = keycloakDataFolder(TEST_DATA_DIR);
  const fresh = path.join(TEST_DATA_DIR, `realms-${hashOfRealms()}`);
  rmSync(state, { recursive: true, force: true });
  if (existsSync(fresh)) cpSync(fresh, state, { recursive: true });
  const keycloak = await startBareKeycloak(say);
  if (existsSync(fresh)) return keycloak;
  const admin = await signInAsBootstrapAdmin(
    keycloak.url,
    createSecrets(TEST_DATA_DIR).get('keycloak-admin'),
  );
  for (const realm of ['master', 'ops-center', 'ops-center-vault']) await makeCheap(admin, realm);
  await addDemoData(admin, 'ops-center', await readDemo());
  say('Keycloak: storing a copy of the fresh realms for later runs');
  await keycloak.stop();
  for (const old of readdirSync(TEST_DATA_DIR).filter((name) => name.startsWith('realms-')))
    rmSync(path.join(TEST_DATA_DIR, old), { recursive: true });
  cpSync(state, fresh, { recursive: true });
  return startBareKeycloak(say);
}

async function makeCheap(admin: KcAdminClient, realm: string): Promise<void> {
  const { id } = (await admin.realms.findOne({ realm })) ?? {};
  if (id === undefined) throw new Error(`Keycloak has no realm ${realm}`);
  await admin.components.create({ ...ECDSA_KEYS, realm, parentId: id, providerType: KEY_PROVIDER });
  for (const client of await admin.clients.find({ realm })) {
    const cheap = toCheapClient(client);
    if (cheap !== client) await admin.clients.update({ realm, id: client.id ?? '' }, cheap);
  }
  // In the realm master nothing but admin tokens is signed.
  const defaultSignatureAlgorithm = realm === 'master' ? ADMIN_TOKEN_ALGORITHM : SIGNATURE_ALGORITHM;
  await admin.realms.update({ realm }, { passwordPolicy: PASSWORD_POLICY, defaultSignatureAlgorithm });
}

function startBareKeycloak(say: (text: string) => void) {
  return startKeycloak({
    dataDir: TEST_DATA_DIR,
    port: 0,
    secrets: createSecrets(TEST_DATA_DIR),
    // Every test app has its own web client; nothing listens at the address of the imported one.
    publicUrl: 'http://localhost:1',
    internalUrl: 'http://localhost:1',
    environment: process.env,
    note: (text) => {
      say(`Keycloak: ${text}`);
    },
  });
}

/** Includes a secret and the changes, because the imported realms contain them. */
function hashOfRealms(): string {
  const secrets = createSecrets(TEST_DATA_DIR);
  return hashOfFiles(
    KEYCLOAK_FOLDER,
    secrets.get('keycloak-admin') + readFileSync(path.join(import.meta.dirname, 'cheap-realm.ts'), 'utf8'),
  );
}

function hashOfFiles(folder: string, more = ''): string {
  const hash = createHash('sha256').update(more);
  for (const file of readdirSync(folder).sort()) hash.update(readFileSync(path.join(folder, file)));
  return hash.digest('hex').slice(0, 16);
}
