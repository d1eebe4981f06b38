/**
 * The engine of TEST_DOCKER_HOST, used instead of the one that the tests start. For a local socket, a proxy process adds
 * TLS, because the app connects with TLS only. For a TLS address, the proxy adds a local socket, for tests that inspect
 * the engine without TLS.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { readCommandLine } from '../../src/dev/quickstart/processes.ts';
import type { DockerProxyDescription } from '../hosts/docker-proxy.ts';
import type { DockerHost } from './hosts.ts';

const HOSTS = path.resolve(import.meta.dirname, '..', 'hosts');
/** The `docker` program on the PATH. */
const DOCKER_COMMAND = 'docker';
const START_WAIT_MS = 20_000;

/** An engine that the environment configures. */
export interface ExternalEngine {
  /** `unix:///path` or `tcp://host:port`. */
  address: string;
  /** Folder with `ca.pem`, `cert.pem` and `key.pem`, for a tcp address. */
  certificates: string | undefined;
  image: string;
  smallImage: string;
  /** Folder for the proxy's files. */
  folder: string;
}

/** The engine of TEST_DOCKER_HOST and its related variables; undefined when the tests start one. */
export function findExternalEngine(environment: NodeJS.ProcessEnv): ExternalEngine | undefined {
  const address = environment['TEST_DOCKER_HOST'];
  if (address === undefined) return undefined;
  return {
    address,
    certificates: environment['TEST_DOCKER_CERT_PATH'],
    image: environment['TEST_DOCKER_IMAGE'] ?? 'node:24-bookworm',
    smallImage: environment['TEST_DOCKER_SMALL_IMAGE'] ?? 'busybox:stable',
    folder: DOCKER_PROXY_FOLDER,
  };
}
export const DOCKER_PROXY_FOLDER = path.resolve(HOSTS, '..', '..', '.data', 'test-hosts', 'front');
export const PODMAN_PROXY_FOLDER = path.resolve(HOSTS, '..', '..', '.data', 'test-hosts', 'podman-front');

/** Starts the proxy and pulls the images. {@link stopDockerProxy} stops the proxy. */
export function prepareExternalEngine(engine: ExternalEngine): Omit<DockerHost, 'overSsh'> {
  execFileSync(path.join(HOSTS, 'certificates.sh'), [path.join(engine.folder, 'certs')], {
    stdio: 'inherit',
  });
  const { socketPath, version, port } = ensureDockerProxy(engine);
  for (const name of [engine.image, engine.smallImage]) ensureImage(socketPath, name);
  const { image, smallImage } = engine;
  const readProxyCertificate = (name: string) =>
    readFileSync(path.join(engine.folder, 'certs', `${name}.pem`), 'utf8');
  const untrusted = {
    untrustedCert: readProxyCertificate('stranger'),
    untrustedKey: readProxyCertificate('stranger-key'),
  };
  const common = { image, smallImage, ...untrusted, socketPath, version, command: DOCKER_COMMAND };
  const { certificates } = engine;
  if (certificates === undefined) {
    const client = {
      ca: readProxyCertificate('ca'),
      clientCert: readProxyCertificate('client'),
      clientKey: readProxyCertificate('client-key'),
    };
    return { host: `tcp://127.0.0.1:${port}`, ...client, ...common };
  }
  const readCertificate = (name: string) => readFileSync(path.join(certificates, `${name}.pem`), 'utf8');
  return {
    host: engine.address,
    ca: readCertificate('ca'),
    clientCert: readCertificate('cert'),
    clientKey: readCertificate('key'),
    ...common,
  };
}

/** Stops the proxy of {@link prepareExternalEngine}. */
export function stopDockerProxy(folder: string): void {
  const outcome = readOutcome(folder);
  if (outcome !== undefined && 'pid' in outcome && readCommandLine(outcome.pid)?.includes(folder) === true)
    process.kill(outcome.pid);
  rmSync(path.join(folder, 'front.json'), { force: true });
  rmSync(path.join(folder, 'claimed'), { recursive: true, force: true });
}

function readOutcome(folder: string): DockerProxyDescription | { problem: string } | undefined {
  const file = path.join(folder, 'front.json');
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as DockerProxyDescription | { problem: string };
}

/** The process that creates the folder starts the proxy; the others wait for the proxy's description. */
function ensureDockerProxy(engine: ExternalEngine): DockerProxyDescription {
  try {
    mkdirSync(path.join(engine.folder, 'claimed'));
    startDockerProxy(engine);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const untilMs = Date.now() + START_WAIT_MS;
  for (;;) {
    const outcome = readOutcome(engine.folder);
    if (outcome !== undefined && 'pid' in outcome) return outcome;
    if (outcome !== undefined || Date.now() > untilMs) {
      const problem = outcome?.problem ?? `nothing within ${START_WAIT_MS / 1000} s`;
      throw new Error(`The Docker Engine at ${engine.address} was not reached: ${problem}`);
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
  }
}

function startDockerProxy({ address, folder, certificates = '' }: ExternalEngine): void {
  spawn(process.execPath, [path.join(HOSTS, 'docker-proxy.ts'), address, folder, certificates], {
    detached: true,
    stdio: 'ignore',
  }).unref();
}

function ensureImage(socketPath: string, name: string): void {
  const docker = (...args: string[]) =>
    execFileSync(DOCKER_COMMAND, ['--host', `unix://${socketPath}`, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  try {
    docker('image', 'inspect', name);
  } catch {
    process.stderr.write(`[test hosts] pulling ${name}\n`);
    docker('pull', '--quiet', name);
  }
}
