import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from '@jest/globals';
import { createDialer } from '../src/lib/net/dialer.ts';
import { randomId } from '../src/lib/ids.ts';
import { createLog } from '../src/lib/log.ts';
import { createSshConnections, type SshConnections } from '../src/lib/ssh/connections.ts';
import { createRunners } from '../src/runners/index.ts';
import type { Job, Limits, RunEvent, Runner, ServerType, TargetServer } from '../src/runners/runner.ts';
import { dockerHost, kubernetesHost, sshHosts } from '../test/support/hosts.ts';
import { printTimes } from './table.ts';

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 30);
const LIMITS: Limits = {
  timeoutMs: 120_000,
  maxOutputBytes: 1024 ** 3,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};

const dialer = createDialer({
  mode: 'local',
  allow: undefined,
  deny: [],
  forbidden: () => [],
  connectTimeoutMs: 5_000,
});
const runners = createRunners({ dialer, log: createLog('silent') });
const times: Record<string, number[]> = {};
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ops-center-bench-'));
});
afterAll(async () => {
  for (const runner of runners.values()) await runner.close();
  await dialer.close();
  rmSync(folder, { recursive: true });
  printTimes('Runs: time to the first byte of echo, and from cancel to the verified exit', times);
});

function job(command: string): Job {
  return {
    runId: randomId(),
    program: { command },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
  };
}

/** Reads a run to its end. @returns times of its first output and its end, in ms since its start. */
async function timeRun(events: AsyncIterable<RunEvent>): Promise<{ firstMs: number; endMs: number }> {
  const startedAtMs = performance.now();
  let firstMs = NaN;
  for await (const event of events) {
    if (event.type === 'output' && Number.isNaN(firstMs)) firstMs = performance.now() - startedAtMs;
    if (event.type === 'exit' && event.cause !== 'exited')
      throw new Error(`ended by ${event.cause}: ${event.message}`);
  }
  return { firstMs, endMs: performance.now() - startedAtMs };
}

/** Lower limit for SSH: a channel of an open connection, without any wrapper around the command. */
async function timeChannel(connections: SshConnections, server: TargetServer): Promise<number> {
  const startedAtMs = performance.now();
  const channel = await connections.openExecStream(server, 'echo hello', new AbortController().signal);
  await once(channel, 'data');
  const firstMs = performance.now() - startedAtMs;
  await channel.ended;
  return firstMs;
}

/** Time from the cancel of an endless loop to its verified exit. */
async function timeCancel(runner: Runner, target: TargetServer): Promise<number> {
  const stopping = new AbortController();
  let cancelledAtMs = NaN;
  for await (const event of runner.run(
    target,
    job('echo begun; while :; do :; done'),
    LIMITS,
    stopping.signal,
  )) {
    if (event.type === 'output' && Number.isNaN(cancelledAtMs)) {
      cancelledAtMs = performance.now();
      stopping.abort('cancelled');
    }
    if (event.type === 'exit') expect(event).toMatchObject({ cause: 'cancelled', cleanup: 'verified' });
  }
  return performance.now() - cancelledAtMs;
}

/** For comparison: the plain command line tool, one process per call. */
async function timeCommand(file: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<number> {
  const startedAtMs = performance.now();
  const child: ChildProcess = spawn(file, args, {
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const closed = once(child, 'close');
  if (child.stdout === null) throw new Error('no output');
  await once(child.stdout, 'data');
  const firstMs = performance.now() - startedAtMs;
  await closed;
  return firstMs;
}

interface MeasureOptions {
  rounds?: number;
  /** Pause before each round, so that a warm pool can replace its container. */
  pauseMs?: number;
}

async function measure(
  name: string,
  one: () => Promise<number>,
  options: MeasureOptions = {},
): Promise<void> {
  const { rounds = ROUNDS, pauseMs = 0 } = options;
  await one(); // Warm-up: the first round is slower.
  const measured: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await delay(pauseMs);
    measured.push(await one());
  }
  times[name] = measured;
}

function getRunner(type: ServerType): Runner {
  const runner = runners.get(type);
  if (runner === undefined) throw new Error(`there is no ${type} runner`);
  return runner;
}

async function measureRunner(
  type: ServerType,
  target: TargetServer,
  options: MeasureOptions = {},
): Promise<void> {
  const runner = getRunner(type);
  await measure(
    `${type}: first byte of echo`,
    async () =>
      (await timeRun(runner.run(target, job('echo hello'), LIMITS, new AbortController().signal))).firstMs,
    options,
  );
  await measure(`${type}: cancel to verified exit`, () => timeCancel(runner, target), options);
}

function target(config: object, overrides: Partial<TargetServer> = {}): TargetServer {
  return {
    serverId: randomId(),
    owner: 'user:bench',
    version: 1,
    config,
    hostKey: null,
    workspacePath: null,
    jumpServers: new Map(),
    ...overrides,
  };
}

/** Writes a file with a secret that only its owner can read. */
function privateFile(name: string, text: string): string {
  const file = path.join(folder, name);
  writeFileSync(file, text);
  chmodSync(file, 0o600);
  return file;
}

it('SSH', async () => {
  const { user, keys, plain } = sshHosts();
  const { host, port, hostKey } = plain;
  const config = { host, port, username: user, auth_method: 'key', private_key: keys.ed25519 };
  const server = target(getRunner('ssh').config.parse(config) as object, { hostKey });
  const bare = createSshConnections({ dialer });
  await measure('bare channel of a warm connection: first byte of echo', () => timeChannel(bare, server));
  await bare.close();
  await measureRunner('ssh', server);
  const key = privateFile('key', keys.ed25519);
  const options = [
    'UserKnownHostsFile=/dev/null',
    'StrictHostKeyChecking=no',
    'LogLevel=ERROR',
    'IdentitiesOnly=yes',
  ];
  const args = ['-F', 'none', '-i', key, '-p', String(port), ...options.flatMap((option) => ['-o', option])];
  await measure('plain ssh: first byte of echo', () =>
    timeCommand('ssh', [...args, `${user}@${host}`, 'echo hello']),
  );
});

it('Docker', async () => {
  const { host, ca, clientCert, clientKey, image, socketPath } = dockerHost();
  const config = { host, ca, client_cert: clientCert, client_key: clientKey, image };
  const engine = target(getRunner('docker').config.parse(config) as object);
  await measureRunner('docker', engine, { pauseMs: 1_000 });
  await measure('plain docker run: first byte of echo', () =>
    timeCommand('docker', ['run', '--rm', '--network', 'none', image, 'echo', 'hello'], {
      DOCKER_HOST: `unix://${socketPath}`,
    }),
  );
});

const cluster = kubernetesHost();
(cluster === undefined ? it.skip : it)('Kubernetes', async () => {
  if (cluster === undefined) throw new Error('skipped');
  const { clusterUrl, caCert, namespace, token, image, kubeconfig } = cluster;
  const config = { cluster_url: clusterUrl, ca_cert: caCert, namespace, service_account_token: token, image };
  const parsed = (await getRunner('kubernetes').config.parseAsync(config)) as object;
  await measureRunner('kubernetes', target(parsed), { rounds: 5 });
  const file = privateFile('kubeconfig', kubeconfig);
  // The namespace requires this of every pod; kubectl has no options for it.
  const securityContext = {
    runAsNonRoot: true,
    runAsUser: 10001,
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    seccompProfile: { type: 'RuntimeDefault' },
  };
  await measure(
    'plain kubectl run: first byte of echo',
    () => {
      const name = `bench-${randomUUID()}`;
      const container = { name, image, command: ['echo', 'hello'], stdin: true, securityContext };
      const overrides = JSON.stringify({ apiVersion: 'v1', spec: { containers: [container] } });
      return timeCommand(
        'kubectl',
        [
          ...['--kubeconfig', file, '-n', namespace, 'run', name, '--image', image],
          ...['--rm', '-i', '--quiet', '--restart=Never', `--overrides=${overrides}`],
        ],
        { HOME: folder },
      );
    },
    { rounds: 5 },
  );
});
