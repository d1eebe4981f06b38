import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fetch } from 'undici';
import type { HostAndPort } from '../../../lib/net/addresses.ts';
import { runToCompletion, startChild, readLogTail, type Child } from '../child.ts';
import { createPrivateFolder } from '../data-dir.ts';
import { installKeycloak, KEYCLOAK_FOLDER, keycloakHome } from './archive.ts';
import { listTcpListeners } from '../listeners.ts';
import { choosePort, toLoopbackUrl } from '../ports.ts';
import { stopProcess, isProcessRunning, listProcesses, type ProcessInfo } from '../processes.ts';
import type { Secrets } from '../secrets.ts';
import { StartError } from '../../../lib/errors.ts';

export interface KeycloakOptions {
  dataDir: string;
  /** 0 picks a free port. */
  port: number;
  secrets: Secrets;
  /** Values of `PUBLIC_URL` and `INTERNAL_URL` in the realm files, for the first import. */
  publicUrl: string;
  internalUrl: string;
  /** Environment of this process. PATH, HOME, JAVA_HOME and MAVEN_OPTS are passed to child processes. */
  environment: Record<string, string | undefined>;
  note: (text: string) => void;
  /** Cancels the start; nothing is left running then. */
  signal?: AbortSignal | undefined;
}

export interface RunningKeycloak {
  /** Address for browsers, and the start of the issuer in tokens. */
  readonly url: string;
  /** Address for requests of the app. Has an IP address instead of `localhost`, see `toLoopbackUrl`. */
  readonly internalUrl: string;
  readonly port: number;
  /** Port of the health endpoints, on loopback. Users must not reach it. */
  readonly managementPort: number;
  /** All addresses on which Keycloak listens, as far as the system reports them. */
  readonly listeners: readonly HostAndPort[];
  /** Process id of the JVM (kc.sh can be its parent), or of the `docker` command attached to the container. */
  readonly pid: number;
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

export const BOOTSTRAP_ADMIN = 'admin';
const REALM_FILES = ['ops-center-realm.json', 'ops-center-vault-realm.json'];
/** kc.sh selects the G1 collector. The serial collector and the C1 compiler save 180 MB and half the start time. */
export const JAVA_OPTIONS = '-XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1';
const READY_TIMEOUT_MS = 10 * 60_000;

/**
 * Installs Keycloak if necessary, starts it on loopback, and waits until it is ready. The realms are imported on the
 * first start only.
 * @throws StartError if Java or Maven is missing, the port is in use, or Keycloak does not become ready.
 */
export async function startKeycloak(options: KeycloakOptions): Promise<RunningKeycloak> {
  const env = javaEnvironment(options.environment);
  await assertJava(options);
  const home = keycloakHome(options.dataDir);
  await stopKeycloak(options.dataDir);
  const port = await choosePort(options.port, 'KEYCLOAK_PORT');
  const managementPort = await choosePort(0, 'KEYCLOAK_PORT');
  await installKeycloak({ ...options, home, env });
  const isFirst = !existsSync(keycloakDataFolder(options.dataDir));
  restrictFolders(options.dataDir, home);
  const realmValues = realmVariables(options);
  await copyRealmFiles(home, realmValues);
  const logFile = path.join(options.dataDir, 'keycloak.log');
  const url = `http://localhost:${port}`;
  options.note(
    isFirst ? 'starting on Java for the first time: building and importing the realms' : 'starting on Java',
  );
  const child = await startChild({
    command: path.join(home, 'bin', 'kc.sh'),
    args: serverArguments(url, port, managementPort),
    env: {
      ...env,
      ...realmValues,
      JAVA_OPTS_APPEND: JAVA_OPTIONS,
      KC_DB_URL: databaseUrl(options.dataDir),
      KC_BOOTSTRAP_ADMIN_USERNAME: BOOTSTRAP_ADMIN,
      KC_BOOTSTRAP_ADMIN_PASSWORD: options.secrets.get('keycloak-admin'),
    },
    cwd: home,
    logFile,
  });
  const stop = () => stopKeycloak(options.dataDir);
  try {
    await waitForKeycloak(managementPort, child, logFile, options.signal);
    const pid = findJvm(home)?.pid ?? child.pid;
    const listeners = listTcpListeners(pid);
    return {
      ...{ url, internalUrl: toLoopbackUrl(url), port, managementPort, listeners, pid },
      ...{ ended: child.ended, stop },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Folder of Keycloak's realms. It does not depend on the version. */
export function keycloakDataFolder(dataDir: string): string {
  return path.join(dataDir, 'keycloak-data');
}

/**
 * Restricts the folders around Keycloak's files: Keycloak creates files with realm keys and client secrets that every
 * user of the machine can read.
 */
function restrictFolders(dataDir: string, home: string): void {
  createPrivateFolder(keycloakDataFolder(dataDir));
  createPrivateFolder(home);
}

/**
 * Keycloak's default database is inside the folder of its version. It also lets other processes connect
 * (AUTO_SERVER), so the JVM would listen on another port. The remaining settings are those that Keycloak adds to its
 * default: its schema has columns named VALUE, and it closes the database itself.
 */
function databaseUrl(dataDir: string): string {
  const settings = ['AUTO_SERVER=FALSE', 'NON_KEYWORDS=VALUE', 'DB_CLOSE_ON_EXIT=FALSE', 'DB_CLOSE_DELAY=0'];
  return [`jdbc:h2:file:${path.join(keycloakDataFolder(dataDir), 'keycloakdb')}`, ...settings].join(';');
}

/** Returns the environment variables in a realm file that have no default. */
export function listPlaceholders(realmFile: string): string[] {
  return [...new Set([...realmFile.matchAll(/\$\{([A-Z][A-Z0-9_]*)\}/g)].map((match) => match[1] ?? ''))];
}

/**
 * Stops every Keycloak process of the data directory, of any version and from any start. The JVM has its home folder
 * on the command line; its script exits with it.
 */
export async function stopKeycloak(dataDir: string): Promise<void> {
  const running = listProcesses().filter(({ argv }) => isKeycloakProcess(dataDir, argv));
  const ended = await Promise.all(
    running.map(({ pid }) =>
      stopProcess(pid, [
        { signal: 'SIGTERM', waitMs: 20_000 },
        { signal: 'SIGKILL', waitMs: 5_000 },
      ]),
    ),
  );
  if (ended.includes(false))
    throw new StartError(`Keycloak in ${dataDir} cannot be stopped. Kill its process.`);
}

const HOME_OPTION = '-Dkc.home.dir=';

function isKeycloakProcess(dataDir: string, argv: readonly string[]): boolean {
  const [shell = '', script = ''] = argv;
  const homes = path.join(dataDir, 'keycloak-');
  const isScript = path.basename(shell) === 'sh' && script.startsWith(homes) && script.endsWith('/bin/kc.sh');
  return isScript || argv.some((part) => part.startsWith(`${HOME_OPTION}${homes}`));
}

/** Finds the JVM of the Keycloak in `home`. kc.sh passes the folder as `<home>/bin/..`. */
function findJvm(home: string): ProcessInfo | undefined {
  return listProcesses().find(({ argv }) => argv.includes(`${HOME_OPTION}${home}/bin/..`));
}

/** Returns the named variables that are set, as the environment of a child process. */
export function pickEnvironment(
  environment: Record<string, string | undefined>,
  names: readonly string[],
): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => (environment[name] ? [[name, environment[name]] as const] : [])),
  );
}

function javaEnvironment(environment: Record<string, string | undefined>): Record<string, string> {
  return pickEnvironment(environment, ['PATH', 'HOME', 'JAVA_HOME', 'MAVEN_OPTS', 'TMPDIR']);
}

/** @returns why the installed Java cannot run Keycloak; undefined if it can. */
export async function findJavaProblem(
  environment: Record<string, string | undefined>,
  cwd: string,
): Promise<string | undefined> {
  const env = javaEnvironment(environment);
  const javaHome = env['JAVA_HOME'];
  const command = javaHome === undefined ? 'java' : path.join(javaHome, 'bin', 'java');
  const output = await runToCompletion({ command, args: ['-version'], env, cwd }).catch(() => '');
  const major = Number(/version "(\d+)/.exec(output)?.[1] ?? 0);
  if (major >= 17) return undefined;
  return major === 0 ? 'Java is not installed' : `Java ${major} is too old`;
}

async function assertJava({ environment, dataDir }: KeycloakOptions): Promise<void> {
  const problem = await findJavaProblem(environment, dataDir);
  if (problem === undefined) return;
  throw new StartError(
    `${problem}, and no Docker engine responds. Keycloak needs Java 17, 21 or 25 and, to be downloaded once, Maven; or a Docker engine on this machine. Install both (Debian: \`apt install openjdk-17-jre-headless maven\`, macOS: \`brew install openjdk@21 maven\`), and set JAVA_HOME where Java is in no usual folder; or start Docker to run Keycloak in a container; or set KEYCLOAK_URL to your own Keycloak.`,
  );
}

export function realmVariables(options: KeycloakOptions): Record<string, string> {
  return {
    PUBLIC_URL: options.publicUrl,
    INTERNAL_URL: options.internalUrl,
    KEYCLOAK_WEB_CLIENT_SECRET: options.secrets.get('keycloak-web-client'),
    KEYCLOAK_SERVICE_CLIENT_SECRET: options.secrets.get('keycloak-service-client'),
    KEYCLOAK_VAULT_CLIENT_SECRET: options.secrets.get('keycloak-vault-client'),
  };
}

/**
 * Copies the realm files to Keycloak's import folder.
 * @throws StartError if a placeholder has no value: Keycloak would use its literal text, which is public, as the
 *   secret.
 */
export async function copyRealmFiles(home: string, values: Record<string, string>): Promise<void> {
  const folder = path.join(home, 'data', 'import');
  await mkdir(folder, { recursive: true });
  for (const file of REALM_FILES) {
    const source = path.join(KEYCLOAK_FOLDER, file);
    const missing = listPlaceholders(await readFile(source, 'utf8')).filter((name) => !values[name]);
    if (missing.length > 0)
      throw new StartError(`${file} cannot be imported without ${missing.join(', ')}. Set these variables.`);
    await copyFile(source, path.join(folder, file));
  }
}

/** `start-dev` parses the theme again for each page, which takes half of the processor time of a sign-in. */
const THEME_CACHE = ['--spi-theme--cache-themes=true', '--spi-theme--cache-templates=true'];

function serverArguments(url: string, port: number, managementPort: number): string[] {
  return [
    ...['start-dev', '--import-realm', '--http-host=127.0.0.1', `--http-port=${port}`, ...THEME_CACHE],
    ...['--health-enabled=true', `--http-management-port=${managementPort}`, `--hostname=${url}`],
  ];
}

/** Waits until Keycloak is ready. @throws StartError with the end of its log if `child` exits before. */
export async function waitForKeycloak(
  managementPort: number,
  child: Child,
  logFile: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const untilMs = Date.now() + READY_TIMEOUT_MS;
  let ended: string | undefined;
  void child.ended.then((exit) => {
    ended = exit;
  });
  for (;;) {
    signal?.throwIfAborted();
    if (ended !== undefined || !isProcessRunning(child.pid)) {
      throw new StartError(
        `Keycloak ${ended ?? 'exited'}. The end of ${logFile}:\n${await readLogTail(logFile)}`,
      );
    }
    if (Date.now() > untilMs)
      throw new StartError(`Keycloak did not become ready in 10 minutes. See ${logFile}.`);
    // Keycloak logs "Listening" before the schema and the import are finished. Only this endpoint shows readiness.
    const answer = await fetch(`http://127.0.0.1:${managementPort}/health/ready`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.status === 200) return;
    await delay(500);
  }
}
