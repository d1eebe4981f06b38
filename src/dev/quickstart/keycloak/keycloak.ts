import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fetch } from 'undici';
import { runToCompletion, startChild, readLogTail, type Child } from '../child.ts';
import { createPrivateFolder } from '../data-dir.ts';
import { installKeycloak, KEYCLOAK_FOLDER, keycloakHome } from './archive.ts';
import { listTcpListeners, type TcpListener } from '../listeners.ts';
import { choosePort, toLoopbackUrl } from '../ports.ts';
import { stopProcess, isAlive, listProcesses, type ProcessInfo } from '../processes.ts';
import type { Secrets } from '../secrets.ts';
import { StartError } from '../../../cli/start-error.ts';

export interface KeycloakOptions {
  dataDir: string;
  /** 0 picks a free one. */
  port: number;
  secrets: Secrets;
  /** What the realm files' `PUBLIC_URL` and `INTERNAL_URL` stand for on the first import. */
  publicUrl: string;
  internalUrl: string;
  /** Our own environment: PATH, HOME, JAVA_HOME and MAVEN_OPTS are handed on. */
  environment: Record<string, string | undefined>;
  note: (text: string) => void;
  /** Gives the start up; nothing is left running then. */
  signal?: AbortSignal | undefined;
}

export interface RunningKeycloak {
  /** The address that browsers use, and that tokens name as their issuer's. */
  readonly url: string;
  /** The address for calls of our own, which must not be led elsewhere: no name, see `onLoopback`. */
  readonly internalUrl: string;
  readonly port: number;
  /** Health lies there, on loopback; it must not be reachable by users. */
  readonly managementPort: number;
  /** All that the JVM listens on, as far as the system tells. */
  readonly listeners: readonly TcpListener[];
  /** Of the JVM (kc.sh may stand between us and it), or of the `docker` that follows its container. */
  readonly pid: number;
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

export const BOOTSTRAP_ADMIN = 'admin';
const REALM_FILES = ['ops-center-realm.json', 'ops-center-vault-realm.json'];
/** kc.sh sets G1; one thread's collector and the first compiler alone save 180 MB and half the start. */
export const JAVA_OPTIONS = '-XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1';
const READY_TIMEOUT_MS = 10 * 60_000;

/**
 * Installs Keycloak if need be, starts it on loopback, and waits until it says that it is ready. The realms
 * are imported on the first start and left alone on later ones.
 * @throws StartError without Java or Maven, when the port is busy, or when it does not come up.
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
    isFirst
      ? 'starting on Java for the first time: it builds itself and imports the realms'
      : 'starting on Java',
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

/** Where Keycloak keeps its realms, whichever version of it runs. */
export function keycloakDataFolder(dataDir: string): string {
  return path.join(dataDir, 'keycloak-data');
}

/**
 * Keycloak writes its files readable for everybody, realm keys and client secrets in them: what keeps other
 * users of the machine out is the folders around them.
 */
function restrictFolders(dataDir: string, home: string): void {
  createPrivateFolder(keycloakDataFolder(dataDir));
  createPrivateFolder(home);
}

/**
 * Keycloak's own default lies inside the folder of its version, and lets other processes join in
 * (AUTO_SERVER): for that the JVM would listen on one more port, which nobody needs. The other settings are the ones
 * that Keycloak adds to its own (its schema has columns named VALUE; it closes the database itself).
 */
function databaseUrl(dataDir: string): string {
  const settings = ['AUTO_SERVER=FALSE', 'NON_KEYWORDS=VALUE', 'DB_CLOSE_ON_EXIT=FALSE', 'DB_CLOSE_DELAY=0'];
  return [`jdbc:h2:file:${path.join(keycloakDataFolder(dataDir), 'keycloakdb')}`, ...settings].join(';');
}

/** The names in capitals that a realm file takes from the environment, without those that have a default. */
export function listPlaceholders(realmFile: string): string[] {
  return [...new Set([...realmFile.matchAll(/\$\{([A-Z][A-Z0-9_]*)\}/g)].map((match) => match[1] ?? ''))];
}

/**
 * Ends every process of a Keycloak in the data directory, whichever its version and whoever started it. The
 * JVM names its home on the command line; the script around it ends with it.
 */
export async function stopKeycloak(dataDir: string): Promise<void> {
  const own = listProcesses().filter(({ argv }) => isKeycloakProcess(dataDir, argv));
  const ended = await Promise.all(
    own.map(({ pid }) =>
      stopProcess(pid, [
        { signal: 'SIGTERM', waitMs: 20_000 },
        { signal: 'SIGKILL', waitMs: 5_000 },
      ]),
    ),
  );
  if (ended.includes(false)) throw new StartError(`Keycloak in ${dataDir} does not end.`);
}

const HOME_OPTION = '-Dkc.home.dir=';

function isKeycloakProcess(dataDir: string, argv: readonly string[]): boolean {
  const [shell = '', script = ''] = argv;
  const homes = path.join(dataDir, 'keycloak-');
  const isScript = path.basename(shell) === 'sh' && script.startsWith(homes) && script.endsWith('/bin/kc.sh');
  return isScript || argv.some((part) => part.startsWith(`${HOME_OPTION}${homes}`));
}

/** The JVM of the Keycloak in `home`; kc.sh spells its home that way. */
function findJvm(home: string): ProcessInfo | undefined {
  return listProcesses().find(({ argv }) => argv.includes(`${HOME_OPTION}${home}/bin/..`));
}

/** What of our environment a child is given: those of the names that are set. */
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

/** @returns words for why the machine's Java cannot run Keycloak; undefined when it can. */
export async function findJavaProblem(
  environment: Record<string, string | undefined>,
  cwd: string,
): Promise<string | undefined> {
  const env = javaEnvironment(environment);
  const javaHome = env['JAVA_HOME'];
  const command = javaHome === undefined ? 'java' : path.join(javaHome, 'bin', 'java');
  const printed = await runToCompletion({ command, args: ['-version'], env, cwd }).catch(() => '');
  const major = Number(/version "(\d+)/.exec(printed)?.[1] ?? 0);
  if (major >= 17) return undefined;
  return major === 0 ? 'There is no Java' : `Java ${major} is too old`;
}

async function assertJava({ environment, dataDir }: KeycloakOptions): Promise<void> {
  const problem = await findJavaProblem(environment, dataDir);
  if (problem === undefined) return;
  throw new StartError(
    `${problem}: Keycloak needs Java 17, 21 or 25, or a Docker engine on this machine, and none answers either. Install Java (Debian: \`apt install openjdk-17-jre-headless\`, macOS: \`brew install openjdk@21\`) or point JAVA_HOME to it; or start Docker, and a container of Keycloak is taken; or set KEYCLOAK_URL to a Keycloak of your own.`,
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
 * Lays the realm files where Keycloak imports from.
 * @throws StartError when a placeholder has no value: Keycloak would take its literal text, which everyone
 *   can read here, for the secret.
 */
export async function copyRealmFiles(home: string, values: Record<string, string>): Promise<void> {
  const folder = path.join(home, 'data', 'import');
  await mkdir(folder, { recursive: true });
  for (const file of REALM_FILES) {
    const source = path.join(KEYCLOAK_FOLDER, file);
    const missing = listPlaceholders(await readFile(source, 'utf8')).filter((name) => !values[name]);
    if (missing.length > 0) throw new StartError(`${file} cannot be imported without ${missing.join(', ')}.`);
    await copyFile(source, path.join(folder, file));
  }
}

function serverArguments(url: string, port: number, managementPort: number): string[] {
  return [
    ...['start-dev', '--import-realm', '--http-host=127.0.0.1', `--http-port=${port}`],
    ...['--health-enabled=true', `--http-management-port=${managementPort}`, `--hostname=${url}`],
  ];
}

/** Waits until Keycloak says so. @throws StartError with the end of its log when `child` ends before. */
export async function waitForKeycloak(
  managementPort: number,
  child: Child,
  logFile: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const untilMs = Date.now() + READY_TIMEOUT_MS;
  let ended: string | undefined;
  void child.ended.then((how) => {
    ended = how;
  });
  for (;;) {
    signal?.throwIfAborted();
    if (ended !== undefined || !isAlive(child.pid)) {
      throw new StartError(
        `Keycloak ${ended ?? 'ended'}. The end of ${logFile}:\n${await readLogTail(logFile)}`,
      );
    }
    if (Date.now() > untilMs)
      throw new StartError(`Keycloak did not become ready in 10 minutes; see ${logFile}`);
    // "Listening" is logged before the schema and the import are done; this alone says ready.
    const answer = await fetch(`http://127.0.0.1:${managementPort}/health/ready`).catch(() => undefined);
    await answer?.body?.cancel();
    if (answer?.status === 200) return;
    await delay(500);
  }
}
