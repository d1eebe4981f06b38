import { existsSync } from 'node:fs';
import { chown, readFile, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { runToCompletion, startChild, readLogTail, type Child } from '../child.ts';
import { locatePostgres } from './binaries.ts';
import { preparePostgresLocation, type PostgresLocation } from './location.ts';
import { prepareRoles } from './roles.ts';
import { choosePort } from '../ports.ts';
import { readCommandLine, stopProcess, isProcessRunning } from '../processes.ts';
import type { Secrets } from '../secrets.ts';
import { StartError } from '../../../lib/errors.ts';

export interface PostgresOptions {
  dataDir: string;
  /** 0 picks a free port. */
  port: number;
  secrets: Secrets;
  /** false turns fsync off, for tests whose data is not kept. */
  durable: boolean;
  /** Receives the current activity, for the progress display. */
  note: (text: string) => void;
}

/** `superuser` is used for setup only. The app does not receive its password. */
export type PostgresRole = 'superuser' | 'owner' | 'app';

export interface RunningPostgres {
  readonly port: number;
  readonly pid: number;
  /** Resolves when the server has exited, with a text that describes the exit. */
  readonly ended: Promise<string>;
  /** Connection string, with the password. */
  urlFor(role: PostgresRole, database?: string): string;
  /** Stops the server: closes all connections and keeps all committed data. */
  stop(): Promise<void>;
}

const ROLE_NAMES = { superuser: 'postgres', owner: 'ops_center_owner', app: 'ops_center' } as const;
const DATABASE_NAME = 'ops_center';

/**
 * Starts Postgres on loopback. Creates the cluster, its two roles and its database on the first run. First stops a
 * server that a killed start left running in the same folder.
 * @throws StartError if the port is in use or the server does not become ready.
 */
export async function startPostgres(options: PostgresOptions): Promise<RunningPostgres> {
  const location = preparePostgresLocation(options.dataDir);
  const binaries = await locatePostgres(location.runAs, location.binariesParent);
  const data = path.join(location.folder, 'data');
  await stopOrphanedPostgres(data);
  const port = await choosePort(options.port, 'POSTGRES_PORT');
  if (!existsSync(data)) {
    options.note('creating the database cluster');
    await createCluster(binaries, location, options);
  }
  const logFile = path.join(options.dataDir, 'postgres.log');
  const child = await startChild({
    command: path.join(binaries, 'bin', 'postgres'),
    args: serverArguments(data, port, options.durable),
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
    cwd: location.folder,
    logFile,
    runAs: location.runAs,
  });
  const server = toRunningPostgres(child, port, options.secrets);
  try {
    await waitForPostgres(server, child, logFile);
    await prepareRoles(server.urlFor('superuser', 'postgres'), DATABASE_NAME, {
      owner: { name: ROLE_NAMES.owner, password: options.secrets.get('postgres-owner') },
      app: { name: ROLE_NAMES.app, password: options.secrets.get('postgres-app') },
    });
    return server;
  } catch (error) {
    await server.stop();
    throw error;
  }
}

/**
 * Stops a server that still runs on this folder. Removes a `postmaster.pid` whose process id now belongs to another
 * process: Postgres would take any process of its own user for a running server.
 */
export async function stopOrphanedPostgres(data: string): Promise<void> {
  const pidFile = path.join(data, 'postmaster.pid');
  const lines = (await readFile(pidFile, 'utf8').catch(() => '')).split('\n');
  const pid = Number(lines[0]);
  if (!Number.isInteger(pid) || pid <= 1) return;
  if (isProcessRunning(pid) && isServing(pid, data)) await stopPostgres(pid);
  else await rm(pidFile, { force: true });
}

function isServing(pid: number, data: string): boolean {
  const argv = readCommandLine(pid) ?? [];
  return path.basename(argv[0] ?? '') === 'postgres' && argv[argv.indexOf('-D') + 1] === data;
}

/** SIGINT is Postgres's fast shutdown, SIGQUIT its immediate one (PostgreSQL manual, 18.5). */
async function stopPostgres(pid: number): Promise<void> {
  const ended = await stopProcess(pid, [
    { signal: 'SIGINT', waitMs: 10_000 },
    { signal: 'SIGQUIT', waitMs: 5_000 },
  ]);
  if (!ended) throw new StartError(`Postgres cannot be stopped. Kill process ${pid}.`);
}

async function createCluster(
  binaries: string,
  location: PostgresLocation,
  options: PostgresOptions,
): Promise<void> {
  const draft = path.join(location.folder, 'data.new');
  const passwordFile = path.join(location.folder, 'password');
  await rm(draft, { recursive: true, force: true });
  await writeFile(passwordFile, options.secrets.get('postgres-superuser'), { mode: 0o600 });
  try {
    if (location.runAs !== undefined) await chown(passwordFile, location.runAs.uid, location.runAs.gid);
    await runToCompletion({
      command: path.join(binaries, 'bin', 'initdb'),
      args: [
        ...['-D', draft, '-U', ROLE_NAMES.superuser, `--pwfile=${passwordFile}`, '--auth=scram-sha-256'],
        ...['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8'],
        ...['--no-instructions', ...(options.durable ? [] : ['--no-sync'])],
      ],
      env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
      cwd: location.folder,
      runAs: location.runAs,
    });
  } finally {
    await rm(passwordFile, { force: true });
  }
  // Renamed only when complete, so that a killed initdb leaves no partial cluster.
  await rename(draft, path.join(location.folder, 'data'));
}

function serverArguments(data: string, port: number, durable: boolean): string[] {
  const settings = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    shared_buffers: '64MB',
    max_connections: durable ? '100' : '300',
    ...(durable ? {} : { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }),
  };
  return ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])];
}

function toRunningPostgres(child: Child, port: number, secrets: Secrets): RunningPostgres {
  return {
    port,
    pid: child.pid,
    ended: child.ended,
    urlFor(role, database = DATABASE_NAME) {
      return `postgres://${ROLE_NAMES[role]}:${secrets.get(`postgres-${role}`)}@127.0.0.1:${port}/${database}`;
    },
    stop: () => stopPostgres(child.pid),
  };
}

async function waitForPostgres(server: RunningPostgres, child: Child, logFile: string): Promise<void> {
  let ended: string | undefined;
  void child.ended.then((exit) => {
    ended = exit;
  });
  const untilMs = Date.now() + 60_000;
  for (;;) {
    if (ended !== undefined) {
      throw new StartError(`Postgres ${ended}. The end of ${logFile}:\n${await readLogTail(logFile)}`);
    }
    const client = new pg.Client({
      connectionString: server.urlFor('superuser', 'postgres'),
      connectionTimeoutMillis: 2_000,
    });
    try {
      await client.connect();
      return;
    } catch (error) {
      // 28P01: the server is up, but the password is not that of the cluster (DATA_DIR/secrets was lost).
      if ((error as { code?: string }).code === '28P01') throw passwordMismatch();
      if (Date.now() > untilMs)
        throw new StartError(`Postgres did not become ready in 60 s. See ${logFile}.`);
      await delay(50);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}

function passwordMismatch(): StartError {
  return new StartError(
    'Postgres refuses the password in DATA_DIR/secrets: it is not the password of this cluster. Restore the file, or move DATA_DIR away to start with a new cluster.',
  );
}
