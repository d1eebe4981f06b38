import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { json } from 'node:stream/consumers';
import { afterEach } from '@jest/globals';
import type { Dialer } from '../../../src/lib/net/dialer.ts';
import { createLog } from '../../../src/lib/log.ts';
import { createSshConnections } from '../../../src/lib/ssh/connections.ts';
import { createDockerRunner, type DockerRunnerDeps } from '../../../src/runners/docker/index.ts';
import type { Job, Limits, RunEvent, Runner, TargetServer } from '../../../src/runners/runner.ts';
import { dockerConfig, type DockerConfig } from '../../../src/runners/docker/config.ts';
import { containerName } from '../../../src/runners/docker/containers.ts';
import { localDialer } from '../../lib/ssh/servers.ts';
import type { DockerHost } from '../../support/hosts.ts';

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Runs after the current test, in reverse order of registration. */
export function afterThisTest(cleanup: () => Promise<unknown>): void {
  cleanups.push(cleanup);
}

/** Creates a runner, which is closed after the test. */
export function openRunner(changes: Partial<DockerRunnerDeps> = {}): Runner<DockerConfig> {
  const dialer: Dialer = localDialer();
  const ssh = createSshConnections({ dialer });
  const runner = createDockerRunner({ dialer, ssh, log: createLog('silent'), ...changes });
  afterThisTest(async () => {
    await runner.close();
    await ssh.close();
    await dialer.close();
  });
  return runner;
}

/** Parsed configuration of a server on the test engine. */
export function createConfig(host: DockerHost, changes: Record<string, unknown> = {}): DockerConfig {
  const { ca, clientCert, clientKey, image } = host;
  const given = { host: host.host, ca, client_cert: clientCert, client_key: clientKey, image };
  return dockerConfig.parse({ ...given, ...changes });
}

export function createTarget(
  config: DockerConfig,
  changes: Partial<TargetServer<DockerConfig>> = {},
): TargetServer<DockerConfig> {
  return {
    serverId: randomUUID(),
    owner: 'user:one',
    version: 1,
    config,
    hostKey: null,
    workspacePath: null,
    jumpServers: new Map(),
    ...changes,
  };
}

export interface FoundContainer {
  id: string;
  /** With a leading slash. */
  name: string;
  /** `run`, `warm` or `test`. */
  purpose: string;
  state: string;
}

/** Lists the containers of all servers whose ids begin with `serverId`, with a direct call to the engine. */
/** The container of a run. A server can also have a container that was started for its next run. */
export async function getRunContainer(
  host: DockerHost,
  serverId: string,
  runId: string,
): Promise<FoundContainer> {
  const container = (await listContainers(host, serverId)).find(({ name }) =>
    name.includes(containerName(runId)),
  );
  if (container === undefined) throw new Error('the run has no container');
  return container;
}

export async function listContainers(host: DockerHost, serverId: string): Promise<FoundContainer[]> {
  interface Listed {
    Id: string;
    Names: string[];
    State: string;
    Labels: Record<string, string>;
  }
  const all = (await callEngine(host, 'GET', '/containers/json?all=1')) as Listed[];
  return all
    .filter(({ Labels }) => Labels['ops-center.server']?.startsWith(serverId) === true)
    .map(({ Id, Names, State, Labels }) => ({
      id: Id,
      name: Names.join(),
      purpose: Labels['ops-center.purpose'] ?? '',
      state: State,
    }));
}

/** Calls the engine directly, without the code under test. */
export async function callEngine(
  { socketPath }: DockerHost,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const headers = { 'content-type': 'application/json' };
  request({ socketPath, method, path, headers }, (response) => {
    const hasBody = (response.statusCode ?? 0) === 200 || (response.statusCode ?? 0) === 201;
    if (hasBody) json(response).then(resolve, reject);
    else response.resume().on('end', () => resolve(undefined));
  })
    .on('error', reject)
    .end(body === undefined ? undefined : JSON.stringify(body));
  return promise;
}

export const NO_LIMITS: Limits = {
  timeoutMs: 60_000,
  maxOutputBytes: 2 ** 30,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: null,
};

/** A job with defaults for all members that are not given. */
export function createJob(command: string, changes: Partial<Job> = {}): Job {
  return {
    runId: randomUUID(),
    program: { command },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
    ...changes,
  };
}

export interface RunOutcome {
  stdout: string;
  stderr: string;
  exit: Extract<RunEvent, { type: 'exit' }>;
}

/** Starts a run and reads it to its end. */
export function runToExit(
  runner: Runner<DockerConfig>,
  target: TargetServer<DockerConfig>,
  job: Job,
  limits: Partial<Limits> = {},
): Promise<RunOutcome> {
  return readOutcome(runner.run(target, job, { ...NO_LIMITS, ...limits }, new AbortController().signal));
}

/** Reads a run to its end. */
export async function readOutcome(events: AsyncIterable<RunEvent>): Promise<RunOutcome> {
  const text = { stdout: '', stderr: '' };
  for await (const event of events) {
    if (event.type === 'output') text[event.stream] += Buffer.from(event.data).toString();
    if (event.type === 'exit') return { ...text, exit: event };
  }
  throw new Error('the run ended without an exit');
}

/** Reads a run up to its first output. @throws Error when the run ends before. */
export async function readUntilOutput(events: AsyncIterator<RunEvent, void>): Promise<void> {
  for (;;) {
    const { value: event } = await events.next();
    if (event === undefined) throw new Error('the run ended without an exit');
    if (event.type === 'exit') throw new Error(`the run ended without output: ${JSON.stringify(event)}`);
    if (event.type === 'output') return;
  }
}
