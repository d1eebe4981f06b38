import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { runToCompletion, startChild } from '../child.ts';
import { KEYCLOAK_FOLDER } from './archive.ts';
import {
  BOOTSTRAP_ADMIN,
  pickEnvironment,
  JAVA_OPTIONS,
  realmVariables,
  waitForKeycloak,
  type KeycloakOptions,
  type RunningKeycloak,
} from './keycloak.ts';
import type { TcpListener } from '../listeners.ts';
import { choosePort, toLoopbackUrl } from '../ports.ts';
import { writePrivateFile } from '../secrets.ts';

/** A Docker engine of this machine, through the command `docker`. */
export interface DockerCli {
  /** What the command is given of our environment: where the engine is. */
  readonly env: Record<string, string>;
  /** Runs `docker` to its end. @returns what it printed, warnings too. @throws StartError when it fails. */
  run(args: readonly string[], signal?: AbortSignal): Promise<string>;
}

/** As docker-compose.yml names it: both build it from keycloak/Dockerfile. */
const IMAGE = 'ops-center-keycloak';
/** As docker-compose.yml runs it. */
const HARDENING_OPTIONS = [
  '--read-only',
  '--cap-drop=ALL',
  '--security-opt=no-new-privileges',
  '--tmpfs=/tmp',
];
/** Inside the container: pages, management, and the two of its cluster's transport, which nobody needs here. */
const PORTS = { pages: 8080, management: 9000, others: [7800, 57_800] };
const DOCKER_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_S = 20;

/**
 * Finds the Docker engine that `docker` is set to.
 * @returns undefined without that command, when no engine answers, or when it is another machine's: what is
 *   published on its loopback cannot be reached from ours.
 */
export async function findDocker(
  environment: Record<string, string | undefined>,
  cwd: string,
): Promise<DockerCli | undefined> {
  const names = ['DOCKER_HOST', 'DOCKER_CONTEXT', 'DOCKER_CONFIG', 'DOCKER_BUILDKIT', 'XDG_RUNTIME_DIR'];
  const env = pickEnvironment(environment, ['PATH', 'HOME', ...names]);
  const run: DockerCli['run'] = (args, signal) =>
    runToCompletion({ command: 'docker', args, env, cwd, signal });
  const signal = AbortSignal.timeout(DOCKER_TIMEOUT_MS);
  try {
    await run(['version', '--format', '{{.Server.Version}}'], signal);
    const address = await run(['context', 'inspect', '--format', '{{.Endpoints.docker.Host}}'], signal);
    return /^unix:\/\//m.test(address) ? { env, run } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Starts Keycloak in a container, reached on loopback alone, and waits until it says that it is ready. What a
 * killed start left is ended first. The realms are imported on the first start and left alone on later ones.
 * @throws StartError when the image cannot be built, the port is busy, or Keycloak does not come up.
 */
export async function startKeycloakContainer(
  docker: DockerCli,
  options: KeycloakOptions,
): Promise<RunningKeycloak> {
  const { dataDir, note, signal } = options;
  const stop = () => removeContainers(docker, dataDir);
  await stop();
  const port = await choosePort(options.port, 'KEYCLOAK_PORT');
  const managementPort = await choosePort(0, 'KEYCLOAK_PORT');
  note('building its image; the first time Docker fetches Keycloak');
  await docker.run(['build', '--quiet', '--tag', IMAGE, KEYCLOAK_FOLDER], signal);
  signal?.throwIfAborted();
  const url = `http://localhost:${port}`;
  try {
    const id = await createContainer(docker, options, { url, port, managementPort });
    note('starting its container');
    const logFile = path.join(dataDir, 'keycloak.log');
    const attached = { command: 'docker', args: ['start', '--attach', id], env: docker.env };
    const child = await startChild({ ...attached, cwd: dataDir, logFile });
    await waitForKeycloak(managementPort, child, logFile, signal);
    const listeners = await listContainerListeners(docker, id);
    return {
      ...{ url, internalUrl: toLoopbackUrl(url), port, managementPort, listeners },
      ...{ pid: child.pid, ended: child.ended, stop },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Made before it is started, so that from then on it is found by its label. @returns its id. */
async function createContainer(
  docker: DockerCli,
  options: KeycloakOptions,
  at: { url: string; port: number; managementPort: number },
): Promise<string> {
  const settings = {
    ...realmVariables(options),
    JAVA_OPTS_APPEND: JAVA_OPTIONS,
    KC_HOSTNAME: at.url,
    KC_HTTP_ENABLED: 'true',
    KC_BOOTSTRAP_ADMIN_USERNAME: BOOTSTRAP_ADMIN,
    KC_BOOTSTRAP_ADMIN_PASSWORD: options.secrets.get('keycloak-admin'),
  };
  const printed = await runToCompletion({
    command: 'docker',
    args: [
      ...['create', `--label=${toDataDirLabel(options.dataDir)}`, ...HARDENING_OPTIONS],
      // What it prints goes to keycloak.log; the engine keeps no second copy.
      '--log-driver=none',
      // Begins as a copy of the image's folder, the realm files in it.
      `--volume=${getVolumeName(options.dataDir)}:/opt/keycloak/data`,
      `--publish=127.0.0.1:${at.port}:${PORTS.pages}`,
      `--publish=127.0.0.1:${at.managementPort}:${PORTS.management}`,
      // By name alone: everybody on the machine can read a command line.
      ...Object.keys(settings).map((name) => `--env=${name}`),
      IMAGE,
    ],
    env: { ...docker.env, ...settings },
    cwd: options.dataDir,
  });
  const [id] = parseContainerIds(printed);
  if (id === undefined) throw new Error('docker create printed no id');
  return id;
}

/** The label tells whose it is, also after a start that was killed. */
function toDataDirLabel(dataDir: string): string {
  return `ops-center.data-dir=${dataDir}`;
}

/**
 * The volume that holds the realms. Its name is kept in the data directory: without that, whose secrets are in the
 * realms, a later start must not find them.
 */
function getVolumeName(dataDir: string): string {
  const file = path.join(dataDir, 'keycloak-volume');
  if (!existsSync(file)) writePrivateFile(file, `${IMAGE}-${randomBytes(4).toString('hex')}\n`);
  return readFileSync(file, 'utf8').trim();
}

/** Ends the containers of a data directory and removes them; the volume stays. */
async function removeContainers(docker: DockerCli, dataDir: string): Promise<void> {
  const ids = parseContainerIds(
    await docker.run(['ps', '--all', '--quiet', '--no-trunc', `--filter=label=${toDataDirLabel(dataDir)}`]),
  );
  if (ids.length === 0) return;
  await docker.run(['stop', '-t', String(STOP_TIMEOUT_S), ...ids]);
  await docker.run(['rm', '--force', ...ids]);
}

/** The ids of containers, each on a line of its own among warnings. */
function parseContainerIds(printed: string): string[] {
  return [...printed.matchAll(/^[0-9a-f]{64}$/gm)].map(([id]) => id);
}

/** Where the container itself can be reached, past what is published. */
async function listContainerListeners(docker: DockerCli, id: string): Promise<TcpListener[]> {
  const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}';
  const hosts = (await docker.run(['inspect', '--format', format, id])).split(/\s+/).filter(Boolean);
  const ports = [PORTS.pages, PORTS.management, ...PORTS.others];
  return hosts.flatMap((host) => ports.map((port) => ({ host, port })));
}
