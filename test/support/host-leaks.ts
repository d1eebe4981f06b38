import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { readCommandLine, listProcesses } from '../../src/dev/quickstart/processes.ts';
import { HOST_SCRIPTS, runningHosts } from './host-processes.ts';
import { listSandboxLeaks } from './sandbox-leaks.ts';
import { until } from './until.ts';

/** World-writable folders. */
const PUBLIC_FOLDERS = ['/tmp', '/var/tmp', '/dev/shm'];

/**
 * Lists what tests have left on the hosts that were started here, in the cluster and in sandboxes of this machine:
 * processes, files, containers, volumes, networks, pods, control groups.
 * @returns one line each; must be empty
 */
export async function listHostLeaks(): Promise<string[]> {
  const { ssh, docker, podman } = runningHosts();
  return [
    ...(ssh === undefined ? [] : listAccountLeaks(ssh.user)),
    ...(docker === undefined ? [] : await listEngineLeaks('docker', docker.socketPath)),
    ...(podman === undefined ? [] : await listEngineLeaks('podman', podman.socketPath)),
    ...listClusterLeaks(),
    ...(process.platform === 'linux' ? listSandboxLeaks().map((what) => `local: ${what}`) : []),
  ];
}

/** As {@link listHostLeaks}, but waits some seconds for what is just being removed. */
export async function listHostLeaksAfterRun(): Promise<string[]> {
  let last: string[] = [];
  const look = async () => (last = await listHostLeaks());
  await until(look, (leaks) => leaks.length === 0).catch((error: unknown) => last.push(String(error)));
  return last;
}

function listAccountLeaks(user: string): string[] {
  const accounts = listAccounts(user);
  const home = accounts.find(({ name }) => name === user)?.home ?? '';
  const uids = new Set<number | undefined>(accounts.map(({ uid }) => uid));
  const processes = listProcesses()
    .filter(({ pid }) => uids.has(fileOwnerUid(`/proc/${pid}`)))
    .map(({ pid }) => `ssh: process ${pid}: ${(readCommandLine(pid) ?? ['ended']).join(' ').slice(0, 80)}`);
  // The account was created with its keys and the files of /etc/skel.
  const initialFiles = new Set(['.ssh', ...(existsSync('/etc/skel') ? readdirSync('/etc/skel') : [])]);
  const files = [
    ...readdirSync(home)
      .filter((name) => !initialFiles.has(name))
      .map((name) => path.join(home, name)),
    ...PUBLIC_FOLDERS.filter((folder) => existsSync(folder)).flatMap((folder) =>
      readdirSync(folder)
        .map((name) => path.join(folder, name))
        .filter((file) => uids.has(fileOwnerUid(file))),
    ),
  ];
  return [...processes, ...files.map((file) => `ssh: file ${file}`)];
}

interface Account {
  name: string;
  uid: number;
  home: string;
}

/** The account, and those whose names begin with its name and a hyphen. */
function listAccounts(user: string): Account[] {
  return execFileSync('getent', ['passwd'], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.split(':'))
    .map(([name = '', , uid, , , home = '']) => ({ name, uid: Number(uid), home }))
    .filter(({ name }) => name === user || name.startsWith(`${user}-`));
}

/** Undefined when the file or process has just disappeared. */
function fileOwnerUid(file: string): number | undefined {
  return statSync(file, { throwIfNoEntry: false })?.uid;
}

interface Named {
  Id?: string;
  Name?: string;
  Names?: string[];
  Image?: string;
}

/** Only tests use this engine: everything in it except images is theirs. */
async function listEngineLeaks(engine: string, socketPath: string): Promise<string[]> {
  const containers = (await getJson(socketPath, '/containers/json?all=1')) as Named[];
  const { Volumes: volumes } = (await getJson(socketPath, '/volumes')) as { Volumes: Named[] | null };
  const networks = (await getJson(socketPath, '/networks')) as Named[];
  return [
    ...containers.map(
      ({ Id, Names, Image }) => `${engine}: container ${(Names ?? [Id]).join(', ')} of ${Image ?? ''}`,
    ),
    ...(volumes ?? []).map(({ Name }) => `${engine}: volume ${Name ?? ''}`),
    ...networks
      .filter(({ Name = '' }) => !['bridge', 'host', 'none', 'podman'].includes(Name))
      .map(({ Name }) => `${engine}: network ${Name ?? ''}`),
  ];
}

async function getJson(socketPath: string, question: string): Promise<unknown> {
  const request = http.get({ socketPath, path: question });
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const piece of response.setEncoding('utf8')) text += piece as string;
  return JSON.parse(text);
}

function listClusterLeaks(): string[] {
  const file = process.env['TEST_KUBECONFIG'];
  if (file === undefined) return [];
  const args = [path.join(HOST_SCRIPTS, 'kubernetes-remains.ts'), file];
  const text = execFileSync(process.execPath, args, { encoding: 'utf8' });
  return (JSON.parse(text) as string[]).map((pod) => `kubernetes: ${pod}`);
}
