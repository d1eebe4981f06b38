import { describe, it } from '@jest/globals';
import { execFileSync } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { HostKey, ServerType } from '../../src/runners/runner.ts';
import { evidence } from './evidence.ts';
import { findSkipReason, HOST_ENVIRONMENT } from './host-availability.ts';
import {
  CERTIFICATES,
  ensureDockerEngine,
  HOST_SCRIPTS,
  SSH_STATE,
  ensureSshServers,
  type SshAddress,
} from './host-processes.ts';
import { registerSandboxCreator } from './sandbox-leaks.ts';
import { findExternalEngine, prepareExternalEngine } from './external-docker-engine.ts';
import { SERVERS_USED_PREFIX } from './servers-used.ts';
import type { KubernetesAccount } from '../hosts/kubeconfig.ts';

/** A real OpenSSH server. */
export interface SshServer {
  host: string;
  port: number;
  hostKey: HostKey;
}

/** Three OpenSSH servers with one account. Private keys are text in the form that their name tells. */
export interface SshHosts {
  user: string;
  password: string;
  /** Of the keys whose names end in `Pass`. */
  passphrase: string;
  /** What answers, for people. */
  version: string;
  /** Reached directly. */
  plain: SshServer;
  /** Reached directly; the way to `inner`. */
  jump: SshServer;
  /** Reached through `jump` alone; the address is as `jump` sees it. */
  inner: SshServer;
  keys: Record<SshKeyName, string>;
}

/** `other` opens no account. Names without `Pem` are in OpenSSH's own format. */
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

/** A real Docker Engine that speaks TLS and wants to see a client's certificate. Certificates and keys are PEM text. */
export interface DockerHost {
  /** `tcp://127.0.0.1:<port>` */
  host: string;
  ca: string;
  clientCert: string;
  clientKey: string;
  /** A certificate of an authority that the engine does not know. */
  untrustedCert: string;
  untrustedKey: string;
  /** Has python3, node and bash. */
  image: string;
  /** Has a shell and little else. */
  smallImage: string;
  /** A way past TLS, for tests that look at what is left. */
  socketPath: string;
  /** The `docker` program that goes with the engine. */
  command: string;
  /** True where the account of {@link sshHosts} has the `docker` command and this engine behind it. */
  overSsh: boolean;
  version: string;
}

/** A real Kubernetes cluster. */
export interface KubernetesHost {
  /** Of an account that may use pods in the namespace, and nothing else. */
  kubeconfig: string;
  /** Of an account that may do more, for tests that look and that prepare; undefined where none was named. */
  adminKubeconfig: string | undefined;
  clusterUrl: string;
  /** PEM text. */
  caCert: string;
  namespace: string;
  /** Of the restricted account. */
  token: string;
  /** Has a shell. */
  image: string;
  /** Has python3, node and bash; undefined where none was named. */
  languagesImage: string | undefined;
}

/**
 * `describe` where there is such a server. Elsewhere its tests are skipped aloud; in CI a missing server fails,
 * except Kubernetes, which takes too long to build there.
 * @param tests may ask for the server at once ({@link sshHosts} and the like): where there is none it is not called
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

/** The SSH servers; the first who asks starts them (a second or two). They end with the run. */
export function sshHosts(): SshHosts {
  sshCache ??= readSshHosts();
  return sshCache;
}
let sshCache: SshHosts | undefined;

/** The Docker Engine; the first who asks starts it, and makes its images on the very first run (a minute). It ends with the run. */
export function dockerHost(): DockerHost {
  dockerCache ??= readDockerHost();
  return dockerCache;
}
let dockerCache: DockerHost | undefined;

/** The cluster that TEST_KUBECONFIG names; undefined where it names none. */
export function kubernetesHost(): KubernetesHost | undefined {
  const file = process.env['TEST_KUBECONFIG'];
  if (file === undefined) return undefined;
  kubernetesCache ??= readKubernetesHost(file);
  return kubernetesCache;
}
let kubernetesCache: KubernetesHost | undefined;

/**
 * Makes an image that only some tests need, `node:24-bookworm-slim`, known to the engine of {@link dockerHost}
 * (a minute the first time). With an engine of one's own that engine pulls it when it builds.
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

/** Says, for the line that ends the run, which real server a runner met: `OpenSSH 9.2p1 on loopback`. */
export function recordServerUsed(runner: ServerType, what: string): void {
  const folder = process.env['OPS_TEST_EVIDENCE'];
  if (folder === undefined) return;
  appendFileSync(path.join(folder, `${SERVERS_USED_PREFIX}-${process.pid}.txt`), `${runner}: ${what}\n`);
}

/** Registers a private key as a secret of the run: by a line of its middle, which only this key has. */
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
  const { user, version, plain, jump, inner } = ensureSshServers();
  const text = (name: string) => readFileSync(path.join(SSH_STATE, name), 'utf8');
  const address = ({ host, port, hostKey }: SshAddress): SshServer => ({ host, port, hostKey });
  return {
    ...{ user, version, password: text('password'), passphrase: text('passphrase') },
    ...{ plain: address(plain), jump: address(jump), inner: address(inner) },
    keys: Object.fromEntries(SSH_KEYS.map((name) => [name, text(name)])) as Record<SshKeyName, string>,
  };
}

function readDockerHost(): DockerHost {
  const given = findExternalEngine(process.env);
  const found = given === undefined ? startedEngine() : { ...prepareExternalEngine(given), overSsh: false };
  registerPrivateKey(found.clientKey);
  registerPrivateKey(found.untrustedKey);
  recordServerUsed('docker', `Docker Engine ${found.version} at ${given?.address ?? found.host}`);
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
    // Debian's, which comes with the engine: another one on the PATH may lack parts of it.
    command: '/usr/bin/docker',
    ...{ socketPath, version, overSsh: process.env['TEST_SSH_HOSTS'] === undefined },
  };
}

/** Read by the Kubernetes client in a process of its own: loading the client takes long, and only its tests need it. */
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
