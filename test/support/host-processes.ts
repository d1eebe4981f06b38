import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { isProcessRunning } from '../../src/dev/quickstart/processes.ts';
import type { HostKey } from '../../src/lib/ssh/host-key.ts';
import { clearSandboxCreators } from './sandbox-leaks.ts';
import { DOCKER_PROXY_FOLDER, PODMAN_PROXY_FOLDER, stopDockerProxy } from './external-docker-engine.ts';

export const HOST_SCRIPTS = path.resolve(import.meta.dirname, '..', 'hosts');
const STATE = path.resolve(import.meta.dirname, '..', '..', '.data', 'test-hosts');
export const SSH_STATE = path.join(STATE, 'ssh');
const DOCKER_STATE = path.join(STATE, 'docker');
const SSH_FILE = path.join(SSH_STATE, 'hosts.json');
const DOCKER_FILE = path.join(DOCKER_STATE, 'host.json');
const PODMAN_STATE = path.join(STATE, 'podman');
const PODMAN_FILE = path.join(PODMAN_STATE, 'host.json');
export const CERTIFICATES = path.join(DOCKER_STATE, 'certs');

export interface SshAddress {
  host: string;
  port: number;
  hostKey: HostKey;
  pid: number;
}

interface SshDescription {
  user: string;
  version: string;
  plain: SshAddress;
  jump: SshAddress;
  inner: SshAddress;
  python: SshAddress;
  bare: SshAddress;
  accounts: SshAddress;
  dropbear: SshAddress;
}

interface PodmanDescription {
  pid: number;
  version: string;
  socketPath: string;
}

interface DockerDescription extends PodmanDescription {
  port: number;
}

/** Starts the SSH servers if they are not running. @returns their addresses. */
export function ensureSshServers(): SshDescription {
  const servers = ({ plain, jump, inner, python, bare, accounts, dropbear }: SshDescription) =>
    [plain, jump, inner, python, bare, accounts, dropbear].map(({ pid }) => pid);
  return ensureRunning(SSH_FILE, 'ssh.sh', servers);
}

/** Starts the Docker Engine if it is not running. @returns its address. */
export function ensureDockerEngine(): DockerDescription {
  return ensureRunning(DOCKER_FILE, 'docker.sh', ({ pid }: DockerDescription) => [pid]);
}

/** Starts podman's service if it is not running. @returns its address. */
export function ensurePodman(): PodmanDescription {
  return ensureRunning(PODMAN_FILE, 'podman.sh', ({ pid }: PodmanDescription) => [pid]);
}

export interface RunningHosts {
  ssh: SshDescription | undefined;
  docker: DockerDescription | undefined;
  podman: PodmanDescription | undefined;
}

/** The hosts that were started here and are running. Starts nothing. */
export function runningHosts(): RunningHosts {
  const read = (file: string): unknown =>
    existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
  return {
    ssh: read(SSH_FILE) as SshDescription | undefined,
    docker: read(DOCKER_FILE) as DockerDescription | undefined,
    podman: read(PODMAN_FILE) as PodmanDescription | undefined,
  };
}

/** Stops the hosts that were started here, also by a killed run. @throws AggregateError after trying all. */
export function stopHosts(): void {
  clearSandboxCreators();
  for (const folder of [DOCKER_PROXY_FOLDER, PODMAN_PROXY_FOLDER]) stopDockerProxy(folder);
  const scripts = [
    ...(existsSync(DOCKER_STATE) ? ['docker.sh'] : []),
    ...(existsSync(PODMAN_STATE) ? ['podman.sh'] : []),
    ...(existsSync(SSH_STATE) ? ['ssh.sh'] : []),
  ];
  const problems: unknown[] = [];
  for (const script of scripts) {
    try {
      runScript(script, 'down');
    } catch (error) {
      problems.push(error);
    }
  }
  if (problems.length > 0)
    throw new AggregateError(problems, `Some hosts could not be stopped: ${problems.join(', ')}`);
}

function ensureRunning<T>(file: string, script: string, pidsOf: (description: T) => number[]): T {
  const read = () => JSON.parse(readFileSync(file, 'utf8')) as T;
  if (!existsSync(file) || !pidsOf(read()).every(isProcessRunning)) {
    process.stderr.write(`[test hosts] running ${script} up\n`);
    runScript(script, 'up');
  }
  return read();
}

/** Synchronous: the test file needs the server before it can continue. */
function runScript(script: string, action: 'up' | 'down'): void {
  execFileSync(path.join(HOST_SCRIPTS, script), [action], { stdio: ['ignore', 'ignore', 'inherit'] });
}
