/**
 * An engine of one's own in the place of the one that the tests start, as TEST_DOCKER_HOST names it. Where it is a local socket, a small process puts TLS before it, since the product speaks nothing else; where it is
 * behind TLS, that process puts a local socket before it, for tests that look past TLS.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { commandLine } from '../../src/dev/quickstart/processes.ts';
import type { FrontDescription } from '../hosts/docker-proxy.ts';
import type { DockerHost } from './hosts.ts';

const HOSTS = path.resolve(import.meta.dirname, '..', 'hosts');
/** The client of whoever named the engine. */
const DOCKER_COMMAND = 'docker';
const START_WAIT_MS = 20_000;

/** An engine as the environment names it. */
export interface ExternalEngine {
  /** `unix:///path` or `tcp://host:port`. */
  address: string;
  /** Holds `ca.pem`, `cert.pem` and `key.pem` for an address of the second kind. */
  certificates: string | undefined;
  image: string;
  smallImage: string;
  /** Where the process before the engine keeps what is its own. */
  folder: string;
}

/** What TEST_DOCKER_HOST and the variables beside it name; undefined where the tests start an engine. */
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

/** The engine as tests meet it, with the images in it. {@link stopDockerProxy} ends the process before it. */
export function prepareExternalEngine(engine: ExternalEngine): Omit<DockerHost, 'overSsh'> {
  execFileSync(path.join(HOSTS, 'certificates.sh'), [path.join(engine.folder, 'certs')], {
    stdio: 'inherit',
  });
  const { socketPath, version, port } = ensureDockerProxy(engine);
  for (const name of [engine.image, engine.smallImage]) ensureImage(socketPath, name);
  const { image, smallImage } = engine;
  const own = (name: string) => readFileSync(path.join(engine.folder, 'certs', `${name}.pem`), 'utf8');
  const stranger = { untrustedCert: own('stranger'), untrustedKey: own('stranger-key') };
  const rest = { image, smallImage, ...stranger, socketPath, version, command: DOCKER_COMMAND };
  const { certificates } = engine;
  if (certificates === undefined) {
    const client = { ca: own('ca'), clientCert: own('client'), clientKey: own('client-key') };
    return { host: `tcp://127.0.0.1:${port}`, ...client, ...rest };
  }
  const given = (name: string) => readFileSync(path.join(certificates, `${name}.pem`), 'utf8');
  return {
    host: engine.address,
    ca: given('ca'),
    clientCert: given('cert'),
    clientKey: given('key'),
    ...rest,
  };
}

/** Ends the process of {@link prepareExternalEngine}. */
export function stopDockerProxy(folder: string): void {
  const outcome = readOutcome(folder);
  if (outcome !== undefined && 'pid' in outcome && commandLine(outcome.pid)?.includes(folder) === true)
    process.kill(outcome.pid);
  rmSync(path.join(folder, 'front.json'), { force: true });
  rmSync(path.join(folder, 'claimed'), { recursive: true, force: true });
}

function readOutcome(folder: string): FrontDescription | { problem: string } | undefined {
  const file = path.join(folder, 'front.json');
  if (!existsSync(file)) return undefined;
  return JSON.parse(readFileSync(file, 'utf8')) as FrontDescription | { problem: string };
}

/** Whoever makes the folder starts the process; the others wait for what it says of itself. */
function ensureDockerProxy(engine: ExternalEngine): FrontDescription {
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
