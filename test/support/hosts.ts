import { describe, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { HostKey } from '../../src/lib/ssh/host-key.ts';
import type { ServerType } from '../../src/runners/runner.ts';
import { evidence } from './evidence.ts';
import { findSkipReason, HOST_ENVIRONMENT, reportMissing } from './host-availability.ts';
import {
  CERTIFICATES,
  ensureDockerEngine,
  ensurePodman,
  HOST_SCRIPTS,
  SSH_STATE,
  ensureSshServers,
  type SshAddress,
} from './host-processes.ts';
import { registerSandboxCreator } from './sandbox-leaks.ts';
import { findExternalEngine, PODMAN_PROXY_FOLDER, prepareExternalEngine } from './external-docker-engine.ts';
import { SERVERS_USED_PREFIX } from './servers-used.ts';
import type { KubernetesAccount } from '../hosts/kubeconfig.ts';

/** A real OpenSSH server. */
export interface SshServer {
  host: string;
  port: number;
  hostKey: HostKey;
}

/** SSH servers with one account; of OpenSSH, unless stated. Private keys are text in the format that their name states. */
export interface SshHosts {
  user: string;
  password: string;
  /** Of the keys whose names end in `Pass`. */
  passphrase: string;
  /** Version of the servers, for reports. */
  version: string;
  /** Reachable directly. */
  plain: SshServer;
  /** Reachable directly; the jump host for `inner`. */
  jump: SshServer;
  /** Reachable through `jump` only; the address is the one that `jump` uses. */
  inner: SshServer;
  /** Like `plain`, but programs find no Perl on the PATH. */
  python: SshServer;
  /** Like `plain`, but programs find neither Perl nor Python on the PATH. */
  bare: SshServer;
  /**
   * Like `plain`, for accounts whose names are `user`, a hyphen, and one of: `tcsh`, `csh`, `fish`, `busybox` (the login
   * shell); `exec-bash`, `exec-fish` (which .bashrc starts); `slow` (a .bashrc of 12 s); `forced` (ForceCommand bash);
   * `limited` (its file `limit` has the number of processes that it may have, and its file `path`, if any, its PATH).
   */
  accounts: SshServer;
  /** Dropbear instead of OpenSSH. */
  dropbear: SshServer;
  keys: Record<SshKeyName, string>;
}

/** `other` is not authorized for the account. Keys without `Pem` in their name have OpenSSH's format. */
const SSH_KEYS = [
  'ed25519',
  'rsa',
  'ecdsa',
  'ed25519Pass',
  'rsaPass',
  'rsaPem',
  'rsaPemPass',
  'other',
] as const;
type SshKeyName = (typeof SSH_KEYS)[number];

/** A real Docker Engine with TLS that requires a client certificate. Certificates and keys are PEM text. */
export interface DockerHost {
  /** `tcp://127.0.0.1:<port>` */
  host: string;
  ca: string;
  clientCert: string;
  clientKey: string;
  /** A client certificate of an authority that the engine does not trust. */
  untrustedCert: string;
  untrustedKey: string;
  /** Has python3, node and bash. */
  image: string;
  /** Has a shell and little else. */
  smallImage: string;
  /** The engine without TLS, for tests that look for leaks. */
  socketPath: string;
  /** The engine's `docker` program. */
  command: string;
  /** True when the account of {@link sshHosts} can use this engine with the `docker` command. */
  overSsh: boolean;
  version: string;
}

/** A real Kubernetes cluster. */
export interface KubernetesHost {
  /** For an account that may use pods in the namespace, and nothing else. */
  kubeconfig: string;
  /** For an account with more rights, for preparation and checks; undefined when not configured. */
  adminKubeconfig: string | undefined;
  clusterUrl: string;
  /** PEM text. */
  caCert: string;
  namespace: string;
  /** Token of the restricted account. */
  token: string;
  /** Has a shell. */
  image: string;
  /** Has python3, node and bash; undefined when not configured. */
  languagesImage: string | undefined;
}

/**
 * `describe` when such a server is available. Otherwise the tests are skipped with a message; in CI that is an error,
 * except for Kubernetes, which takes too long to build there.
 * @param tests not called without a server, so it may use {@link sshHosts} and the like immediately
 */
export function describeOn(type: ServerType, name: string, tests: () => void): void {
  const reason = findSkipReason(type, HOST_ENVIRONMENT);
  if (reason === undefined) {
    if (type === 'local') registerSandboxCreator();
    describe(name, tests);
    return;
  }
  process.stderr.write(`${reason} Skipped: ${name}\n`);
  describe.skip(name, () => {
    it(`is skipped: ${reason}`, () => undefined);
  });
}

/** The SSH servers. The first call starts them (a second or two); they are stopped after the run. */
export function sshHosts(): SshHosts {
  sshCache ??= readSshHosts();
  return sshCache;
}
let sshCache: SshHosts | undefined;

/**
 * The Docker Engine. The first call starts it, and builds its images in the very first run (a minute). It is stopped
 * after the run.
 */
export function dockerHost(): DockerHost {
  dockerCache ??= readDockerHost();
  return dockerCache;
}
let dockerCache: DockerHost | undefined;

/**
 * podman's service, which has the API of a Docker Engine, behind a TLS proxy. The first call starts it (some seconds); it
 * is stopped after the run. Its only image has a shell and no `ps`.
 */
export function podmanHost(): Omit<DockerHost, 'overSsh'> {
  podmanCache ??= readPodmanHost();
  return podmanCache;
}
let podmanCache: Omit<DockerHost, 'overSsh'> | undefined;

/** As {@link describeOn}, with {@link podmanHost}. */
export function describeOnPodman(name: string, tests: () => void): void {
  if (HOST_ENVIRONMENT.canStart) {
    describe(name, tests);
    return;
  }
  const reason = 'podman needs root on Linux.';
  reportMissing(`${reason} Skipped: ${name}`, HOST_ENVIRONMENT.environment);
  describe.skip(name, () => {
    it(`is skipped: ${reason}`, () => undefined);
  });
}

/** The cluster of TEST_KUBECONFIG; undefined when that is not set. */
export function kubernetesHost(): KubernetesHost | undefined {
  const file = process.env['TEST_KUBECONFIG'];
  if (file === undefined) return undefined;
  kubernetesCache ??= readKubernetesHost(file);
  return kubernetesCache;
}
let kubernetesCache: KubernetesHost | undefined;

/**
 * Adds the image `node:24.21.0-bookworm-slim`, which only some tests need, to the engine of {@link dockerHost} (a minute the
 * first time). An engine of TEST_DOCKER_HOST pulls it when it builds.
 */
export function ensureNodeSlimImage(): void {
  const { socketPath } = dockerHost();
  if (process.env['TEST_DOCKER_HOST'] !== undefined) return;
  const env = { ...process.env, DOCKER_HOST: `unix://${socketPath}` };
  execFileSync(path.join(HOST_SCRIPTS, 'images.sh'), ['node-slim'], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
}

/** Records which real server a runner used, for the summary of the run: `OpenSSH 9.2p1 on loopback`. */
export function recordServerUsed(runner: ServerType, what: string): void {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  if (folder === undefined) return;
  appendFileSync(path.join(folder, `${SERVERS_USED_PREFIX}-${process.pid}.txt`), `${runner}: ${what}\n`);
}

/** Registers a private key as a secret of the run: one line from its middle, which is unique to the key. */
export function registerPrivateKey(pem: string): void {
  const lines = pem.split('\n').filter((line) => /^[A-Za-z0-9+/=]{20,}$/.test(line));
  const middle = lines[Math.floor(lines.length / 2)];
  if (middle !== undefined) evidence.registerSecret('private key', middle);
}

function readSshHosts(): SshHosts {
  const file = process.env['TEST_SSH_HOSTS'];
  const found = file === undefined ? startedSshHosts() : (JSON.parse(readFileSync(file, 'utf8')) as SshHosts);
  evidence.registerSecret('password', found.password);
  evidence.registerSecret('password', found.passphrase);
  for (const key of Object.values(found.keys)) registerPrivateKey(key);
  recordServerUsed('ssh', `${found.version} at ${found.plain.host}, and through a jump host`);
  return found;
}

function startedSshHosts(): SshHosts {
  const { user, version, plain, jump, inner, python, bare, accounts, dropbear } = ensureSshServers();
  const text = (name: string) => readFileSync(path.join(SSH_STATE, name), 'utf8');
  const address = ({ host, port, hostKey }: SshAddress): SshServer => ({ host, port, hostKey });
  return {
    ...{ user, version, password: text('password'), passphrase: text('passphrase') },
    ...{ plain: address(plain), jump: address(jump), inner: address(inner) },
    ...{ python: address(python), bare: address(bare) },
    ...{ accounts: address(accounts), dropbear: address(dropbear) },
    keys: Object.fromEntries(SSH_KEYS.map((name) => [name, text(name)])) as Record<SshKeyName, string>,
  };
}

function readDockerHost(): DockerHost {
  const external = findExternalEngine(process.env);
  const found =
    external === undefined ? startedEngine() : { ...prepareExternalEngine(external), overSsh: false };
  registerPrivateKey(found.clientKey);
  registerPrivateKey(found.untrustedKey);
  recordServerUsed('docker', `Docker Engine ${found.version} at ${external?.address ?? found.host}`);
  return found;
}

function startedEngine(): DockerHost {
  const { port, version, socketPath } = ensureDockerEngine();
  const certificate = (name: string) => readFileSync(path.join(CERTIFICATES, `${name}.pem`), 'utf8');
  return {
    host: `tcp://127.0.0.1:${port}`,
    ca: certificate('ca'),
    clientCert: certificate('client'),
    clientKey: certificate('client-key'),
    untrustedCert: certificate('stranger'),
    untrustedKey: certificate('stranger-key'),
    image: 'python-node:test',
    smallImage: 'busybox:test',
    // Debian's program, which belongs to the engine. Another one on the PATH may lack plug-ins.
    command: '/usr/bin/docker',
    ...{ socketPath, version, overSsh: process.env['TEST_SSH_HOSTS'] === undefined },
  };
}

function readPodmanHost(): Omit<DockerHost, 'overSsh'> {
  const { socketPath, version } = ensurePodman();
  const image = 'no-ps:test';
  const engine = { address: `unix://${socketPath}`, certificates: undefined, folder: PODMAN_PROXY_FOLDER };
  const found = prepareExternalEngine({ ...engine, image, smallImage: image });
  registerPrivateKey(found.clientKey);
  recordServerUsed('docker', `podman ${version} at ${found.host}`);
  return found;
}

/** Uses the Kubernetes client in a child process: loading it is slow, and only its tests need it. */
function readKubernetesHost(file: string): KubernetesHost {
  const script = path.join(HOST_SCRIPTS, 'kubeconfig.ts');
  const text = execFileSync(process.execPath, [script, file], { encoding: 'utf8' });
  const { version, ...account } = JSON.parse(text) as KubernetesAccount;
  evidence.registerSecret('access token', account.token);
  recordServerUsed('kubernetes', `Kubernetes ${version} at ${account.clusterUrl}`);
  const admin = process.env['TEST_KUBE_ADMIN_KUBECONFIG'];
  return {
    ...account,
    kubeconfig: readFileSync(file, 'utf8'),
    adminKubeconfig: admin === undefined ? undefined : readFileSync(admin, 'utf8'),
    namespace: process.env['TEST_KUBE_NAMESPACE'] ?? account.namespace,
    image: process.env['TEST_KUBE_IMAGE'] ?? 'busybox',
    languagesImage: process.env['TEST_KUBE_LANGUAGES_IMAGE'],
  };
}
