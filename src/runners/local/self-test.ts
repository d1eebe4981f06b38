import { once } from 'node:events';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { randomId } from '../../lib/ids.ts';
import type { Job, Limits } from '../runner.ts';
import { probe, type ProbeFindings, type ProbeGoals } from './probe.ts';
import { startSandbox, type SandboxDeps } from './sandbox.ts';
import { deniedNumbers } from './syscalls.ts';

const TEST_MS = 20_000;
const LIMITS: Limits = {
  timeoutMs: TEST_MS,
  maxOutputBytes: 2 ** 20,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: 'none',
};
/** What a sandbox sets by itself, and what shells add. */
const OWN_VARIABLES = new Set(['PATH', 'HOME', 'LANG', 'TMPDIR', 'PWD', 'OLDPWD', 'SHLVL', '_']);
const OWN_ENTRIES = /^(bin|sbin|lib\w*|usr|etc|dev|proc|run|tmp|work|run\/(node|program))$/;
/** What may be mounted from this machine, read-only, and what is made new for a sandbox. */
const SHOWN = /^\/(usr|bin|sbin|lib\w*|etc\/(alternatives|ld\.so\.cache)|run\/node)(\/|$)/;
const MADE: Record<string, RegExp> = {
  tmpfs: /^\/(dev|dev\/shm|tmp|work)?$/,
  proc: /^\/proc(\/|$)/,
  devtmpfs: /^\/dev\/\w+$/,
  devpts: /^\/dev\/(pts|console)$/,
};
const EPERM = '1';

/**
 * Tries to get out of a sandbox that is made as every other.
 * @returns what could be done that must not be, in words that end a sentence; empty when nothing could.
 * @throws Error when the probe could not be run.
 */
export async function findEscapes(deps: SandboxDeps): Promise<string[]> {
  const bait = await setBait();
  try {
    const goals: ProbeGoals = {
      nonce: randomId(),
      paths: [bait.folder, bait.file, `/proc/${process.pid}/root/etc/passwd`, ...deps.hiddenPaths],
      sockets: bait.sockets,
      pid: process.pid,
      calls: deniedNumbers(deps.architecture),
    };
    const findings = await runProbe(goals, deps);
    if (findings === undefined) throw new Error('no sandbox could be made in which a probe could run');
    return judge(findings, goals);
  } finally {
    await bait.remove();
  }
}

/** What a program would find if it could look around: a file for everybody, and sockets that accept anybody. */
async function setBait() {
  const folder = mkdtempSync(path.join(tmpdir(), `ops-center-bait-${process.pid}-`));
  chmodSync(folder, 0o755);
  const file = path.join(folder, 'file');
  writeFileSync(file, 'bait', { mode: 0o644 });
  const names = [path.join(folder, 'socket'), `\0ops-center-${randomId()}`];
  const servers = await Promise.all([...names.map((name) => listen({ path: name })), listen({ port: 0 })]);
  chmodSync(path.join(folder, 'socket'), 0o666);
  const port = servers.at(-1)?.address();
  return {
    ...{ folder, file },
    sockets: [...names, ...(typeof port === 'object' && port !== null ? [port.port] : [])],
    async remove() {
      await Promise.all(servers.map(close));
      rmSync(folder, { recursive: true });
    },
  };
}

async function listen(where: { path: string } | { port: number }): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  server.listen({ ...where, ...('port' in where ? { host: '127.0.0.1' } : {}) });
  await once(server, 'listening');
  return server;
}

async function close(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}

async function runProbe(goals: ProbeGoals, deps: SandboxDeps): Promise<ProbeFindings | undefined> {
  const job: Job = {
    runId: `self-test-${goals.nonce}`,
    program: { language: 'javascript', code: `(${probe.toString()})(${JSON.stringify(goals)})` },
    ...{ stdin: null, files: [], env: {}, workdir: null },
  };
  const sandbox = await startSandbox(job, '/work', LIMITS, { ...deps, runtime: process.execPath });
  const timer = setTimeout(sandbox.kill, TEST_MS);
  try {
    const [stdout] = await Promise.all([text(sandbox.stdout), text(sandbox.stderr), sandbox.end]);
    const findings = parse(stdout);
    return findings?.nonce === goals.nonce ? findings : undefined;
  } finally {
    clearTimeout(timer);
  }
}

function parse(stdout: string): ProbeFindings | undefined {
  try {
    return JSON.parse(stdout) as ProbeFindings;
  } catch {
    return undefined;
  }
}

function judge(seen: ProbeFindings, goals: ProbeGoals): string[] {
  const own = new Set(ownVariables().filter((name) => !OWN_VARIABLES.has(name)));
  const { status } = seen;
  const rights = Object.entries(status).filter(([name]) => name.startsWith('Cap'));
  const escapes: [boolean, string][] = [
    [seen.readable.length > 0, "read the product's files"],
    [seen.connected.length > 0, "connect to this machine's sockets"],
    [seen.variables.some((name) => own.has(name)), "read the product's environment"],
    [isThisProcess(seen.namesake), "see the product's process"],
    [sharedNamespaces(seen.namespaces).length > 0, "share this machine's namespaces"],
    [rights.length === 0 || rights.some(([, value]) => !/^0+$/.test(value)), 'keep rights of the system'],
    [status['NoNewPrivs'] !== '1' || status['Seccomp'] !== '2', 'run without a filter of system calls'],
    [seen.entries.some((name) => !OWN_ENTRIES.test(name)), "see this machine's folders"],
    [!seen.mounts.every(isOwnMount) || seen.mounts.length === 0, "see this machine's disks"],
    [seen.writable.length > 0, 'write outside of its folders'],
    [seen.interfaces.some((name) => name !== 'lo'), 'see a network'],
    [seen.descriptors.length > 0, 'use what the product has open'],
    [!areDenied(seen.calls, goals.calls), 'make system calls that are denied'],
  ];
  return escapes.flatMap(([escaped, what]) => (escaped ? [what] : []));
}

/** Where nothing is there to make calls with, the filter's presence was seen in the status. */
function areDenied(results: readonly string[], calls: readonly number[]): boolean {
  return results.length === 0 || (results.length === calls.length && results.every((each) => each === EPERM));
}

/** By the time at which it was started: ids are given anew in every namespace. */
function isThisProcess(stat: string): boolean {
  const startTime = (text: string) => text.replace(/^.*\)/s, '').split(' ')[20];
  return stat !== '' && startTime(stat) === startTime(readFileSync('/proc/self/stat', 'latin1'));
}

function isOwnMount({ at, kind, readOnly }: ProbeFindings['mounts'][number]): boolean {
  return (readOnly && SHOWN.test(at)) || MADE[kind]?.test(at) === true;
}

function sharedNamespaces(seen: Record<string, string>): string[] {
  return readdirSync('/proc/self/ns')
    .filter((name) => ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'].includes(name))
    .filter((name) => [undefined, '', readlinkSync(`/proc/self/ns/${name}`)].includes(seen[name]));
}

/** The names of what this process was started with. */
function ownVariables(): string[] {
  const variables = readFileSync('/proc/self/environ', 'latin1').split('\0');
  return variables.map((variable) => variable.replace(/=.*/s, '')).filter(Boolean);
}
