import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import type { Environment } from '../config/config.ts';
import { resolveDataDir } from '../dev/quickstart/data-dir.ts';
import { acquireLock } from '../dev/quickstart/lock.ts';
import { findSshd, startDemoSshHost, type DemoSshHost } from '../dev/quickstart/demo-ssh-host.ts';
import { isProcessRunning } from '../dev/quickstart/processes.ts';
import { getStackFile, type StackFile } from '../dev/quickstart/stack-file.ts';
import { StartError } from '../lib/errors.ts';
import { isLoopbackHost } from '../lib/net/addresses.ts';
import { createDemoSession, sendAsUser, type DemoSession } from './session.ts';
import { assertLocalMode } from './settings.ts';
import type { StopSignals } from './signals.ts';

export interface DemoHostOptions extends StopSignals {
  environment: Environment;
  cwd: string;
  print: (text: string) => void;
}

/** The demo user whose role allows programs on the machine of the app. */
const OWNER = 'operator';
const SERVER_NAME = 'Demo host';
/** How often the command checks that the quick start still runs. */
const STACK_CHECK_MS = 1_000;

const Server = z.object({ id: z.string(), name: z.string() });
const Me = z.object({ features: z.object({ local_execution: z.boolean() }) });
const TestResult = z.object({ status: z.string(), message: z.string() });
const Problem = z.object({ detail: z.string() });

interface OfferedHost {
  /** How its programs run, for the terminal. */
  rights: string;
  stop(): Promise<void>;
}

interface HostOptions {
  dataDir: string;
  /** PATH of programs on the SSH host. */
  searchPath: string;
  /** Path of OpenSSH's server; undefined if it is not installed. */
  sshd: string | undefined;
  print: (text: string) => void;
}

/**
 * `demo-host`: offers this machine to the running quick start as the execution server "Demo host", until it is stopped.
 * The sandbox is offered where the app has it, otherwise an SSH server that runs programs as the user of this process.
 * Sign-in to the quick start needs a public password only, so the command is refused while the app can be reached from
 * other machines.
 * @throws StartError if this machine has neither, if no quick start runs, or if another process offers the host already.
 */
export async function runDemoHost(options: DemoHostOptions): Promise<void> {
  assertLocalMode(options.environment, 'demo-host');
  const dataDir = resolveDataDir(options.environment, options.cwd);
  const stack = getStackFile(dataDir);
  assertLoopbackOnly(stack);
  const release = await acquireLock({
    file: path.join(dataDir, 'demo-host.lock'),
    waitMs: 0,
    busyMessage: (pid) =>
      `Process ${pid} already offers the demo host. To start it again, stop that process first.`,
  });
  try {
    await offerUntilStopped(options, dataDir, stack);
  } finally {
    release();
  }
}

async function offerUntilStopped(options: DemoHostOptions, dataDir: string, stack: StackFile): Promise<void> {
  const { environment, cwd, print, stop } = options;
  const session = await createDemoSession(environment, cwd, OWNER);
  const host = await offerDemoHost(session, {
    ...{ dataDir, print, sshd: findSshd() },
    searchPath: environment['PATH'] ?? '',
  });
  try {
    print(formatDemoHost(host.rights));
    await untilStopped(stack, stop);
    if (!stop.aborted) print(STACK_STOPPED);
  } finally {
    await host.stop();
    if (isProcessRunning(stack.pids.app)) await removeServers(session);
  }
}

/**
 * Adds the server "Demo host": the sandbox where it works, otherwise a new SSH host. It replaces an earlier one.
 * @throws StartError if this machine has neither.
 */
export async function offerDemoHost(session: DemoSession, options: HostOptions): Promise<OfferedHost> {
  await removeServers(session);
  return (await offerSandbox(session, options)) ?? (await offerSshHost(session, options));
}

function assertLoopbackOnly({ app_host: host, app_url: url }: StackFile): void {
  if (isLoopbackHost(host) && isLoopbackHost(new URL(url).hostname)) return;
  throw new StartError(
    `The app listens on ${host}, so other machines could run programs on this one with the public demo password. ` +
      'Start it without HOST and PUBLIC_URL first.',
  );
}

/** Removes the server of this command, and those of earlier ones that were killed. */
async function removeServers(session: DemoSession): Promise<void> {
  const servers = z.array(Server).parse(await call(session, 'GET', ''));
  for (const { id, name } of servers) if (name === SERVER_NAME) await call(session, 'DELETE', `/${id}`);
}

/** @returns undefined if the app does not offer local execution, or if it does not work here. */
async function offerSandbox(session: DemoSession, { print }: HostOptions): Promise<OfferedHost | undefined> {
  const response = await sendAsUser(session, 'GET', '/api/v1/me');
  if (!Me.parse(await response.json()).features.local_execution) return undefined;
  const serverId = await addServer(session, { server_type: 'local', connection_config: {} });
  const test = await testServer(session, serverId);
  if (test.status === 'online')
    return { rights: 'in a sandbox, without network and without your files', stop: () => Promise.resolve() };
  await removeServers(session);
  print(`The sandbox cannot be used: ${test.message}`);
  return undefined;
}

async function offerSshHost(
  session: DemoSession,
  { dataDir, searchPath, sshd }: HostOptions,
): Promise<OfferedHost> {
  if (sshd === undefined) throw new StartError(NO_HOST);
  const ssh = await startDemoSshHost({
    sshd,
    folder: path.join(dataDir, 'demo-host'),
    logFile: path.join(dataDir, 'demo-host.log'),
    searchPath,
  });
  try {
    const serverId = await addSshServer(session, ssh);
    const { status, message } = await testServer(session, serverId);
    if (status !== 'online') throw new StartError(`The demo host does not work: ${message}`);
    return { rights: `as the user "${ssh.username}", with all its rights`, stop: () => ssh.stop() };
  } catch (error) {
    await ssh.stop();
    await removeServers(session);
    throw error;
  }
}

const NO_HOST =
  'This machine has neither an SSH server nor the sandbox. Install OpenSSH (Debian and Ubuntu: apt-get install ' +
  'openssh-server), or, as root on Linux, install bubblewrap and restart with LOCAL_EXECUTION=true npm start.';

/** Confirms the host key too: this process has created it, so it need not be compared. */
async function addSshServer(session: DemoSession, ssh: DemoSshHost): Promise<string> {
  const { host, port, username, privateKey } = ssh;
  const serverId = await addServer(session, {
    server_type: 'ssh',
    connection_config: { host, port, username, auth_method: 'key', private_key: privateKey },
  });
  await call(session, 'POST', `/${serverId}/host-key`, ssh.hostKey);
  return serverId;
}

async function addServer(session: DemoSession, settings: Record<string, unknown>): Promise<string> {
  return Server.parse(await call(session, 'POST', '', { name: SERVER_NAME, ...settings })).id;
}

async function testServer(session: DemoSession, id: string): Promise<z.infer<typeof TestResult>> {
  return TestResult.parse(await call(session, 'POST', `/${id}/test`));
}

/** @param path below `/api/v1/execution-servers`. @throws StartError with the app's message for an error status. */
async function call(session: DemoSession, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await sendAsUser(session, method, `/api/v1/execution-servers${path}`, body);
  const answer: unknown = await response.json();
  if (response.ok) return answer;
  throw new StartError(`The app refused the demo host: ${Problem.parse(answer).detail}`);
}

const STACK_STOPPED =
  `The quick start has stopped, and the demo host with it. After the next \`npm start\`, run this command again: until ` +
  `then, the server "${SERVER_NAME}" cannot be reached.`;

function formatDemoHost(rights: string): string {
  return [
    '',
    `The user "${OWNER}" of the quick start has the server "${SERVER_NAME}": this machine.`,
    `Programs run ${rights}.`,
    'The password of the demo users is public: every account of this machine can run programs so. Ctrl-C ends it.',
    '',
  ].join('\n');
}

/** Waits for Ctrl-C or for the end of the quick start. */
async function untilStopped(stack: StackFile, stop: AbortSignal): Promise<void> {
  while (isProcessRunning(stack.pids.app) && !stop.aborted)
    await delay(STACK_CHECK_MS, undefined, { signal: stop }).catch(() => undefined);
}
