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
import type { HostAndPort } from '../../../lib/net/addresses.ts';
import { choosePort, toLoopbackUrl } from '../ports.ts';
import { writePrivateFile } from '../secrets.ts';

/** Docker engine of this machine, used through the command `docker`. */
export interface DockerCli {
  /** Environment of the command: the variables that select the engine. */
  readonly env: Record<string, string>;
  /** Runs `docker` and waits for its exit. @returns its output, with warnings. @throws StartError if it fails. */
  run(args: readonly string[], signal?: AbortSignal): Promise<string>;
}

/** Same name as in docker-compose.yml: both build keycloak/Dockerfile. */
const IMAGE = 'ops-center-keycloak';
/** Same options as in docker-compose.yml. */
const HARDENING_OPTIONS = [
  '--read-only',
  '--cap-drop=ALL',
  '--security-opt=no-new-privileges',
  '--tmpfs=/tmp',
];
/** Ports inside the container. `others` are the two of the cluster transport, which is not used here. */
const PORTS = { pages: 8080, management: 9000, others: [7800, 57_800] };
const DOCKER_TIMEOUT_MS = 15_000;
const STOP_TIMEOUT_S = 20;

/**
 * Finds the Docker engine that the command `docker` uses.
 * @returns undefined if the command is missing, the engine does not respond, or the engine runs on another machine:
 *   ports published on its loopback cannot be reached from here.
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
 * Starts Keycloak in a container that is published on loopback only, and waits until it is ready. First removes
 * containers that a killed start left. The realms are imported on the first start only.
 * @throws StartError if the image cannot be built, the port is in use, or Keycloak does not become ready.
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
  note('building its image; the first build downloads Keycloak');
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

/** Creates the container without starting it, so that it can be found by its label. @returns its id. */
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
  const output = await runToCompletion({
    command: 'docker',
    args: [
      ...['create', `--label=${toDataDirLabel(options.dataDir)}`, ...HARDENING_OPTIONS],
      // The output goes to keycloak.log. The engine keeps no second copy.
      '--log-driver=none',
      // Docker initializes the volume with the image's folder, which has the realm files.
      `--volume=${getVolumeName(options.dataDir)}:/opt/keycloak/data`,
      `--publish=127.0.0.1:${at.port}:${PORTS.pages}`,
      `--publish=127.0.0.1:${at.managementPort}:${PORTS.management}`,
      // Only the names: every user of the machine can read a command line.
      ...Object.keys(settings).map((name) => `--env=${name}`),
      IMAGE,
    ],
    env: { ...docker.env, ...settings },
    cwd: options.dataDir,
  });
  const [id] = parseContainerIds(output);
  if (id === undefined) throw new Error('docker create printed no id');
  return id;
}

/** The label identifies containers of a data directory, also after the start was killed. */
function toDataDirLabel(dataDir: string): string {
  return `ops-center.data-dir=${dataDir}`;
}

/**
 * Returns the name of the volume with the realms. The name is stored in the data directory, next to the secrets that
 * the realms use: without the directory, a later start must create new realms.
 */
function getVolumeName(dataDir: string): string {
  const file = path.join(dataDir, 'keycloak-volume');
  if (!existsSync(file)) writePrivateFile(file, `${IMAGE}-${randomBytes(4).toString('hex')}\n`);
  return readFileSync(file, 'utf8').trim();
}

/** Stops and removes the containers of a data directory. Keeps the volume. */
async function removeContainers(docker: DockerCli, dataDir: string): Promise<void> {
  const ids = parseContainerIds(
    await docker.run(['ps', '--all', '--quiet', '--no-trunc', `--filter=label=${toDataDirLabel(dataDir)}`]),
  );
  if (ids.length === 0) return;
  await docker.run(['stop', '-t', String(STOP_TIMEOUT_S), ...ids]);
  await docker.run(['rm', '--force', ...ids]);
}

/** Container ids are on separate lines, possibly between warnings. */
function parseContainerIds(output: string): string[] {
  return [...output.matchAll(/^[0-9a-f]{64}$/gm)].map(([id]) => id);
}

/** Addresses at which the container can be reached directly, without its published ports. */
async function listContainerListeners(docker: DockerCli, id: string): Promise<HostAndPort[]> {
  const format = '{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}';
  const hosts = (await docker.run(['inspect', '--format', format, id])).split(/\s+/).filter(Boolean);
  const ports = [PORTS.pages, PORTS.management, ...PORTS.others];
  return hosts.flatMap((host) => ports.map((port) => ({ host, port })));
}
