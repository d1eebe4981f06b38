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
import { parseJson } from '../../lib/json.ts';
import type { Job, Limits } from '../runner.ts';
import { RUNTIME_FILE } from './bwrap-arguments.ts';
import { DESCRIPTORS_FILE, probe, type ProbeFindings, type ProbeInput } from './probe.ts';
import { startSandbox, type LocalCeilings, type SandboxDeps } from './sandbox.ts';
import { listDeniedSyscallNumbers } from './syscalls.ts';

const SELF_TEST_TIMEOUT_MS = 20_000;
const LIMITS: Limits = {
  timeoutMs: SELF_TEST_TIMEOUT_MS,
  maxOutputBytes: 2 ** 20,
  memoryBytes: null,
  cpus: null,
  pids: null,
  network: 'none',
};
/** The probe needs more than an operator may allow a run. */
const NO_CEILINGS: LocalCeilings = { memoryBytes: null, cpus: null, pids: null };
/** Variables that the sandbox sets or shells add. */
const EXPECTED_VARIABLES = new Set(['PATH', 'HOME', 'LANG', 'TMPDIR', 'PWD', 'OLDPWD', 'SHLVL', '_']);
const EXPECTED_ENTRIES = /^(bin|sbin|lib\w*|usr|etc|dev|proc|run|tmp|work|run\/(node|program|environment))$/;
/** Paths of this machine that may be mounted read-only, and mounts that are created for a sandbox, by type. */
const READ_ONLY_MOUNTS = /^\/(usr|bin|sbin|lib\w*|etc\/(alternatives|ld\.so\.cache)|run\/node)(\/|$)/;
const SANDBOX_MOUNTS: Record<string, RegExp> = {
  tmpfs: /^\/(dev|dev\/shm|tmp|work)?$/,
  proc: /^\/proc(\/|$)/,
  devtmpfs: /^\/dev\/\w+$/,
  devpts: /^\/dev\/(pts|console)$/,
};
const EPERM = '1';

/**
 * Tries to escape from a sandbox that is created like that of any job.
 * @returns the forbidden actions that succeeded, each as the end of a sentence; empty when none did.
 * @throws Error when the probe could not run.
 */
export async function findEscapes(deps: SandboxDeps): Promise<string[]> {
  const reachableItems = await createReachableItems();
  try {
    const input: ProbeInput = {
      nonce: randomId(),
      paths: [
        reachableItems.folder,
        reachableItems.file,
        `/proc/${process.pid}/root/etc/passwd`,
        ...deps.hiddenPaths,
      ],
      sockets: reachableItems.sockets,
      pid: process.pid,
      syscalls: listDeniedSyscallNumbers(deps.architecture),
    };
    const findings = await runProbe(input, deps);
    if (findings === undefined) throw new Error('the probe could not run in a sandbox');
    return listEscapes(findings, input);
  } finally {
    await reachableItems.remove();
  }
}

/** Creates what a program could reach without a sandbox: a world-readable file, and sockets that accept any user. */
async function createReachableItems() {
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

async function listen(address: { path: string } | { port: number }): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  server.listen({ ...address, ...('port' in address ? { host: '127.0.0.1' } : {}) });
  await once(server, 'listening');
  return server;
}

async function close(server: Server): Promise<void> {
  server.close();
  await once(server, 'close');
}

async function runProbe(input: ProbeInput, deps: SandboxDeps): Promise<ProbeFindings | undefined> {
  const job: Job = {
    runId: `self-test-${input.nonce}`,
    // The descriptors are listed before the runtime starts, which opens pipes and sockets of its own.
    program: { command: `ls -l /proc/self/fd > ${DESCRIPTORS_FILE}; exec ${RUNTIME_FILE} /work/probe.js` },
    files: [
      {
        path: 'probe.js',
        content: Buffer.from(`(${probe.toString()})(${JSON.stringify(input)}, '${DESCRIPTORS_FILE}')`),
      },
    ],
    ...{ stdin: null, env: {}, workdir: null },
  };
  const sandbox = await startSandbox(job, '/work', LIMITS, {
    ...deps,
    ceilings: NO_CEILINGS,
    runtime: process.execPath,
  });
  const timer = setTimeout(sandbox.kill, SELF_TEST_TIMEOUT_MS);
  try {
    const [stdout] = await Promise.all([text(sandbox.stdout), text(sandbox.stderr), sandbox.end]);
    const findings = parseJson(stdout) as ProbeFindings | undefined;
    return findings?.nonce === input.nonce ? findings : undefined;
  } finally {
    clearTimeout(timer);
  }
}

function listEscapes(findings: ProbeFindings, input: ProbeInput): string[] {
  const productVariables = new Set(listOwnVariables().filter((name) => !EXPECTED_VARIABLES.has(name)));
  const { processStatus: status } = findings;
  const capabilities = Object.entries(status).filter(([name]) => name.startsWith('Cap'));
  const escapes: [boolean, string][] = [
    [findings.readable.length > 0, "read the product's files"],
    [findings.connected.length > 0, "connect to this machine's sockets"],
    [findings.variables.some((name) => productVariables.has(name)), "read the product's environment"],
    [isThisProcess(findings.processStat), "see the product's process"],
    [listSharedNamespaces(findings.namespaces).length > 0, "share this machine's namespaces"],
    [
      capabilities.length === 0 || capabilities.some(([, value]) => !/^0+$/.test(value)),
      'keep system capabilities',
    ],
    [status['NoNewPrivs'] !== '1' || status['Seccomp'] !== '2', 'run without a system call filter'],
    [findings.entries.some((name) => !EXPECTED_ENTRIES.test(name)), "see this machine's folders"],
    [!findings.mounts.every(isExpectedMount) || findings.mounts.length === 0, "see this machine's disks"],
    [findings.writable.length > 0, 'write outside its folders'],
    [findings.interfaces.some((name) => name !== 'lo'), 'see a network'],
    [findings.descriptors.length > 0, 'use files, pipes or sockets that the product has open'],
    [!areSyscallsDenied(findings.syscallErrors, input.syscalls), 'make denied system calls'],
  ];
  return escapes.flatMap(([escaped, action]) => (escaped ? [action] : []));
}

/** Without results no program could make the calls; that a filter is active is checked by the process status. */
function areSyscallsDenied(results: readonly string[], calls: readonly number[]): boolean {
  return (
    results.length === 0 || (results.length === calls.length && results.every((result) => result === EPERM))
  );
}

/** Compares the start time, since each PID namespace assigns its own ids. */
function isThisProcess(stat: string): boolean {
  const startTime = (text: string) => text.replace(/^.*\)/s, '').split(' ')[20];
  return stat !== '' && startTime(stat) === startTime(readFileSync('/proc/self/stat', 'latin1'));
}

function isExpectedMount({ at, kind, readOnly }: ProbeFindings['mounts'][number]): boolean {
  return (readOnly && READ_ONLY_MOUNTS.test(at)) || SANDBOX_MOUNTS[kind]?.test(at) === true;
}

function listSharedNamespaces(namespaces: Record<string, string>): string[] {
  return readdirSync('/proc/self/ns')
    .filter((name) => ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'].includes(name))
    .filter((name) => [undefined, '', readlinkSync(`/proc/self/ns/${name}`)].includes(namespaces[name]));
}

/** Names of the variables that this process was started with. */
function listOwnVariables(): string[] {
  const variables = readFileSync('/proc/self/environ', 'latin1').split('\0');
  return variables.map((variable) => variable.replace(/=.*/s, '')).filter(Boolean);
}
