import { randomUUID } from 'node:crypto';
import type { Dialer } from '../../lib/net/dialer.ts';
import { effectivePort } from '../../lib/net/egress.ts';
import { createEchoMessage, createInterpreterProbe, listSetupSecrets } from '../interpreters.ts';
import type { Limits, TestStageName, TargetServer, ServerTestResult } from '../runner.ts';
import { createSetup, createSetupReader, SETUP_FAILED, type Setup } from '../setup.ts';
import { createTlsStages, runTestSteps, type TestOutcome, type TestStep } from '../test-stages.ts';
import type { ClusterApi, ResourceRight } from './api.ts';
import type { KubernetesConfig } from './config.ts';
import { runPodCommand } from './exec.ts';
import { toClusterError, ClusterError, type ClusterErrorKind } from './errors.ts';
import { createJobPod, type JobPod } from './job-pod.ts';
import { removeExpiredPods } from './cleanup.ts';
import { createJobLaunch } from './launcher.ts';
import { createPodManifest } from './manifest.ts';

/** The rights that the account needs. */
const REQUIRED_RIGHTS: readonly ResourceRight[] = [
  ...['create', 'get', 'list', 'watch', 'delete'].map((verb) => ({ verb, resource: 'pods' })),
  { verb: 'get', resource: 'pods', subresource: 'log' },
  ...['get', 'create'].map((verb) => ({ verb, resource: 'pods', subresource: 'exec' })),
];

/** With the cleanup less than a minute. */
const TEST_TIMEOUT_MS = 38_000;
/** For the versions of all interpreters: the test does not fail for one that does not print its version. */
const VERSIONS_TIMEOUT_MS = 10_000;
const TEST_LIMITS: Limits = {
  timeoutMs: TEST_TIMEOUT_MS,
  maxOutputBytes: 1024,
  memoryBytes: 64 * 1024 * 1024,
  cpus: null,
  pids: null,
  network: null,
};

/** Always writable. */
const DEFAULT_FOLDER = '/tmp';
const NOT_WRITABLE_CODE = 3;
/**
 * Shell script that enters the folder `$1` and writes the file `$2` there, as runs with files do. The file is removed with
 * the pod: the image may have a shell alone.
 */
export const CHECK_FOLDER = `cd -- "$1" || exit 2; (: >"./$2") 2>/dev/null || exit ${NOT_WRITABLE_CODE}`;
const NOT_WRITABLE =
  'The workspace cannot be written, so runs there could not have files: the files of the image are read-only. Leave ' +
  'workspace_path empty, or use /tmp.';

const STATUS_BY_KIND: Readonly<Record<ClusterErrorKind, ServerTestResult['status']>> = {
  policy: 'forbidden',
  unreachable: 'offline',
  timeout: 'offline',
  tls: 'error',
  unauthenticated: 'auth_failed',
  forbidden: 'forbidden',
  no_namespace: 'error',
  refused: 'error',
  malformed: 'error',
};

/** Tests a cluster stage by stage with its own pod, which is removed afterwards. */
export async function testCluster(
  dialer: Dialer,
  api: ClusterApi,
  target: TargetServer<KubernetesConfig>,
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const { server, ca, client } = api.access;
  const peer = { host: server.hostname, port: effectivePort(server), tls: { ca, client } };
  const connection = createTlsStages(dialer, peer, (socket) => socket.destroy());
  const pod = createJobPod(api, createPodManifest(target, randomUUID(), TEST_LIMITS));
  const steps = [...connection.steps, ...accountSteps(api), ...podSteps(api, pod, target)];
  try {
    return await runTestSteps(steps, { timeoutMs: TEST_TIMEOUT_MS, toOutcome: toTestOutcome }, signal);
  } finally {
    connection.close();
    await pod.remove();
  }
}

function accountSteps(api: ClusterApi): TestStep[] {
  const { namespace } = api.access;
  return [
    [
      'authentication',
      async () => {
        await api.isAllowed({ verb: 'get', resource: 'pods' });
      },
    ],
    [
      'permission',
      async () => {
        const allowed = await Promise.all(REQUIRED_RIGHTS.map((right) => api.isAllowed(right)));
        const missing = REQUIRED_RIGHTS.filter((_, index) => allowed[index] === false);
        if (missing.length > 0) throw new ClusterError('forbidden', missingRightsMessage(missing, namespace));
        return `The account has the rights it needs in the namespace ${namespace}.`;
      },
    ],
  ];
}

function missingRightsMessage(missing: readonly ResourceRight[], namespace: string): string {
  const names = missing.map(({ verb, resource, subresource }) =>
    subresource === undefined ? `${verb} ${resource}` : `${verb} ${resource}/${subresource}`,
  );
  return `In the namespace ${namespace} the account lacks the right to ${names.join(', ')}: add it to its role.`;
}

/** The set-up of a server, and the folder in which it runs. */
interface PodSetup {
  setup: Setup;
  folder: string;
}

/**
 * Runs a command after the set-up of the server, as a run does. The set-up is in the input of the command that the pod
 * runs, because the URL has the arguments of that command.
 * @returns the output of the set-up and of the command. @throws ClusterError when the set-up fails.
 */
async function runAfterSetup(
  api: ClusterApi,
  pod: JobPod,
  { setup, folder }: PodSetup,
  text: string,
  signal: AbortSignal,
): Promise<string> {
  const job = {
    runId: randomUUID(),
    program: { command: text },
    stdin: null,
    files: [],
    env: {},
    workdir: null,
  };
  const { command, input } = createJobLaunch(job, folder, setup);
  const reader = createSetupReader(setup);
  const readStderr = (data: Buffer) => void reader.read('stderr', data);
  const result = await runPodCommand(api, pod.name, command, signal, { input, readStderr });
  if (reader.state() === 'running') throw new ClusterError('refused', SETUP_FAILED);
  return result?.stdout ?? '';
}

/** @returns the output of the probe; an empty text if it did not end in time. */
async function readVersions(
  api: ClusterApi,
  pod: JobPod,
  podSetup: PodSetup | undefined,
  signal: AbortSignal,
): Promise<string> {
  const timedSignal = AbortSignal.any([signal, AbortSignal.timeout(VERSIONS_TIMEOUT_MS)]);
  const probe = createInterpreterProbe(null).command;
  try {
    if (podSetup === undefined)
      return (await runPodCommand(api, pod.name, ['sh', '-c', probe], timedSignal))?.stdout ?? '';
    const begin = `${randomUUID()}\n`;
    const output = await runAfterSetup(api, pod, podSetup, `printf %s '${begin}'\n${probe}`, timedSignal);
    return output.slice(output.indexOf(begin) + begin.length);
  } catch {
    signal.throwIfAborted();
    return '';
  }
}

function podSteps(api: ClusterApi, pod: JobPod, target: TargetServer<KubernetesConfig>): TestStep[] {
  const nonce = randomUUID();
  const folder = target.workspacePath ?? DEFAULT_FOLDER;
  const setup = createSetup(target.config.setup);
  const podSetup = setup && { setup, folder };
  const setupSteps = (podSetup === undefined ? [] : [podSetup]).map((each): TestStep => [
    'setup',
    async (signal) => {
      await runAfterSetup(api, pod, each, 'true', signal);
      return undefined;
    },
  ]);
  // In its own session if the image has setsid, so that no signal to a process group reaches it.
  const detachCommand = '{ setsid sleep 600 || sleep 600; } >/dev/null 2>&1 & echo detached';
  return [
    [
      'workspace',
      async (signal) => {
        await pod.start(signal);
        const enter = ['sh', '-c', CHECK_FOLDER, 'sh', folder, `.ops-center-${nonce}`];
        const code = (await runPodCommand(api, pod.name, enter, signal))?.code;
        if (code === NOT_WRITABLE_CODE) throw new ClusterError('refused', NOT_WRITABLE);
        if (code !== 0)
          throw new ClusterError(
            'refused',
            'The workspace does not exist in the image, or cannot be entered.',
          );
        return `The namespace ${api.access.namespace} accepts the pods of runs.`;
      },
    ],
    ...setupSteps,
    [
      'echo',
      async (signal) => {
        const result = await runPodCommand(api, pod.name, ['sh', '-c', 'echo "$1"', 'sh', nonce], signal);
        if (result?.stdout.trim() !== nonce)
          throw new ClusterError('malformed', 'The output of a program did not arrive unchanged.');
        const versions = await readVersions(api, pod, podSetup, signal);
        const secrets = listSetupSecrets(target.config.setup);
        return createEchoMessage(versions, { interpreters: null, secrets, environment: null });
      },
    ],
    [
      'kill',
      async (signal) => {
        const result = await runPodCommand(api, pod.name, ['sh', '-c', detachCommand], signal);
        if (result?.stdout.trim() !== 'detached')
          throw new ClusterError('malformed', 'No process could be started in the pod.');
        if ((await pod.remove()) === 'unverified')
          throw new ClusterError('timeout', 'The node did not confirm in time that the pod has ended.');
      },
    ],
    [
      'cleanup',
      async () => {
        if (
          (await removeExpiredPods(api, target.serverId, Date.now())) === 'unverified' ||
          (await api.findPod(pod.name)) !== undefined
        )
          throw new ClusterError(
            'timeout',
            'Pods of earlier runs could not be removed: look for them in the namespace.',
          );
      },
    ],
  ];
}

function toTestOutcome(error: unknown, stage: TestStageName, isLate: boolean): TestOutcome {
  const { kind, message } = isLate ? timeoutError(stage) : toClusterError(error);
  return { status: STATUS_BY_KIND[kind], message, hostKey: null };
}

function timeoutError(name: TestStageName): ClusterError {
  const message =
    name === 'workspace'
      ? 'The pod did not start in time. If the cluster is still pulling the image, test again in a minute.'
      : 'The cluster took too long.';
  return new ClusterError('timeout', message);
}
