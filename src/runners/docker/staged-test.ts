import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { findTlsErrorReason } from '../../lib/net/tls-connector.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import {
  createEchoMessage,
  createInterpreterProbe,
  isInterpreterProbeComplete,
  listSetupSecrets,
} from '../interpreters.ts';
import { createSetup, createSetupReader, SETUP_FAILED } from '../setup.ts';
import type {
  Job,
  OutputStream,
  RunEvent,
  ServerTestResult,
  TargetServer,
  TestStageName,
} from '../runner.ts';
import { quoteForShell } from '../shell.ts';
import { runTestSteps, toSshOutcome, type TestOutcome, type TestStep } from '../test-stages.ts';
import { removeRunContainers, removeStaleContainers } from './cleanup.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import { containerName } from './containers.ts';
import type { Engine } from './engine.ts';
import { DialError } from './dial-error.ts';
import { DockerError, EngineResponseError, explainDockerError, findDockerError } from './errors.ts';
import { readDockerOutput } from './output.ts';
import { readDockerExit } from './run.ts';
import { createScript, type ScriptMarker } from './script.ts';
import { detachSession, openDockerSession, type DockerSession } from './session.ts';
import {
  createSshConnectionStages,
  createTlsConnectionStages,
  type DockerConnectionDeps,
} from './connection-stages.ts';

/** With the cleanup less than a minute. Pulling an image may take most of it. */
const TEST_TIMEOUT_MS = 45_000;

/** For the versions of all interpreters: the test does not fail for one that does not print its version. */
const VERSIONS_TIMEOUT_MS = 10_000;
const MAX_OUTPUT_LENGTH = 16 * 1024;

/** Test status by the stage that failed. */
const STATUS_BY_STAGE: Partial<Record<TestStageName, ServerTestResult['status']>> = {
  policy: 'forbidden',
  tcp: 'offline',
  authentication: 'auth_failed',
};

/** Tests an engine stage by stage with its own container, which is removed afterwards. */
export async function testEngine(
  target: TargetServer<DockerConfig>,
  deps: DockerConnectionDeps & { instance: string },
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const isTls = toEngineConnection(target.config).kind === 'tls';
  const connection = isTls
    ? createTlsConnectionStages(target, deps)
    : createSshConnectionStages(target, deps);
  const container = createContainerStages(connection.engine, target, deps.instance);
  try {
    return await runTestSteps(
      [...connection.steps, createPermissionStep(connection.engine), ...container.steps],
      { timeoutMs: TEST_TIMEOUT_MS, toOutcome: toTestOutcome },
      signal,
    );
  } finally {
    await container.close();
    connection.close();
  }
}

function createPermissionStep(engine: Engine): TestStep {
  return [
    'permission',
    async (signal) => {
      const { os } = await engine.version(signal);
      if (os !== 'linux') throw new DockerError('The engine does not run Linux containers.');
      const { canLimit } = await engine.info(signal);
      const names = { memoryBytes: 'memory', cpus: 'CPUs', pids: 'processes' };
      const missing = (['memoryBytes', 'cpus', 'pids'] as const).filter((limit) => !canLimit[limit]);
      const passed = 'The engine may be used. Every client of the engine has root rights on its host.';
      if (missing.length === 0) return passed;
      return `${passed} It cannot limit ${missing.map((limit) => names[limit]).join(', ')}.`;
    },
  ];
}

/** Test stages that need a container. */
interface ContainerStages {
  steps: readonly TestStep[];
  /** Removes what is left of the container. */
  close(): Promise<void>;
}

const STARTED = 'A container was started with image, volumes and working folder.';
const STARTED_READ_ONLY =
  'A container was started with image, volumes and working folder. The volume of the working folder is read-only, so ' +
  'runs there cannot have files.';
const NOT_WRITABLE =
  'The working folder cannot be written, so runs there could not have files. Make it writable for user 10001, name a ' +
  'folder of a volume, or mark its volume as read_only.';

/** Runs one job that prints a nonce, starts a process in its own session, and keeps running. */
function createContainerStages(
  engine: Engine,
  target: TargetServer<DockerConfig>,
  instance: string,
): ContainerStages {
  const nonce = randomBytes(16).toString('hex');
  const runId = `test-${nonce}`;
  const isReadOnly = isReadOnlyVolume(target.config.volumes, target.workspacePath);
  const job = createTestJob(runId, nonce, isReadOnly);
  const { environment, setup: setupLine } = target.config;
  const setup = createSetup(setupLine);
  const setupReader = setup && createSetupReader(setup);
  const script = createScript(job, target.workspacePath, environment ?? {}, setup);
  const markers = new Set<ScriptMarker>();
  let hasContainer = false;
  let session: DockerSession | undefined;
  let events: AsyncGenerator<RunEvent, void> | undefined;
  let output = '';

  const getOpened = () => {
    if (session === undefined || events === undefined)
      throw new Error('the container is not running: run the stages in order');
    return { session, events };
  };

  async function startContainer(signal: AbortSignal): Promise<string> {
    const request = {
      target,
      limits: null,
      purpose: 'test',
      name: containerName(runId),
      runId,
      instance,
    } as const;
    hasContainer = true;
    session = await openDockerSession(engine, request, signal);
    events = readDockerOutput(session, script.markerPrefix, markers);
    session.stream.write(script.text);
    // The phase `started`.
    const first = await events.next();
    if (first.done !== true) return isReadOnly ? STARTED_READ_ONLY : STARTED;
    if (markers.has('fail:files')) throw new DockerError(NOT_WRITABLE);
    const { message } = await readDockerExit(engine, session, {
      ...script,
      markers,
      image: target.config.image,
    });
    throw new DockerError(message ?? 'The container ended before the program started.');
  }

  /** Reads output until `isComplete`, its end or its limit. */
  async function readOutput(isComplete: () => boolean): Promise<void> {
    const { events } = getOpened();
    while (!isComplete() && output.length < MAX_OUTPUT_LENGTH) {
      const next = await events.next();
      if (next.done === true) break;
      if (next.value.type === 'output') addOutput(next.value.stream, next.value.data);
    }
  }

  function addOutput(stream: OutputStream, data: Uint8Array): void {
    for (const chunk of setupReader?.read(stream, data) ?? [data])
      output += Buffer.from(chunk).toString('latin1');
  }

  async function checkSetup(): Promise<undefined> {
    await readOutput(() => setupReader?.state() !== 'running');
    if (setupReader?.state() === 'running') throw new DockerError(SETUP_FAILED);
  }

  /** The output of the probe, which that of the set-up may precede. */
  function readProbeOutput(): string {
    const start = setup === undefined ? 0 : output.indexOf(`${nonce}\n`);
    return start === -1 ? '' : output.slice(start);
  }

  async function checkEcho(): Promise<string> {
    await readOutput(() => readProbeOutput().length > nonce.length);
    if (!readProbeOutput().startsWith(`${nonce}\n`))
      throw new DockerError(
        'The output of a program did not arrive unchanged. Check whether the image prints something at start.',
      );
    const readVersions = () => readProbeOutput().slice(nonce.length + 1);
    const late = new AbortController();
    await Promise.race([
      readOutput(() => isInterpreterProbeComplete(readVersions()) || late.signal.aborted),
      delay(VERSIONS_TIMEOUT_MS, undefined, { signal: late.signal, ref: false }).catch(() => undefined),
    ]);
    late.abort();
    const secrets = listSetupSecrets(setupLine);
    return createEchoMessage(readVersions(), { interpreters: null, secrets, environment });
  }

  async function checkKill(): Promise<undefined> {
    const { session } = getOpened();
    await engine.kill(session.id);
    await session.exitWait.exitCode;
    if ((await engine.inspect(session.id))?.isRunning !== false)
      throw new DockerError('The container could not be killed.');
  }

  async function checkCleanup(): Promise<undefined> {
    await removeStaleContainers(engine, target);
    if ((await removeRunContainers(engine, target, runId)) === 'unverified')
      throw new DockerError(
        `A container of this test may be left. Its name begins with ${containerName(runId)}.`,
      );
  }

  return {
    steps: [
      ['workspace', startContainer],
      ...(setup === undefined ? [] : [['setup', checkSetup] as const]),
      ['echo', checkEcho],
      ['kill', checkKill],
      ['cleanup', checkCleanup],
    ],
    async close() {
      if (session !== undefined) detachSession(session);
      if (hasContainer) await removeRunContainers(engine, target, runId);
    },
  };
}

/** Whether the user has declared that a folder cannot be written: runs without files may use it. */
function isReadOnlyVolume(volumes: DockerConfig['volumes'], folder: string | null): boolean {
  const holders = volumes.filter(({ target }) => folder === target || folder?.startsWith(`${target}/`));
  // A volume inside another one has the longer path.
  return holders.sort((a, b) => b.target.length - a.target.length)[0]?.read_only === true;
}

/** Writes a file to the working folder, as runs with files do. The program removes it, and itself. */
function createTestJob(runId: string, nonce: string, isReadOnly: boolean): Job {
  const file = { path: `.ops-center-${nonce}`, content: Buffer.from(nonce) };
  const command = [
    `rm -f -- "$0" ./${file.path}`,
    // In its own session if the image has setsid, so that no signal to a process group reaches it.
    '{ setsid sleep 600 || sleep 600; } >/dev/null 2>&1 &',
    `printf '%s\\n' ${quoteForShell(nonce)}`,
    createInterpreterProbe(null).command,
    'sleep 600',
  ].join('\n');
  const files = isReadOnly ? [] : [file];
  return { runId, program: { command }, stdin: null, files, env: {}, workdir: null };
}

function toTestOutcome(error: unknown, stage: TestStageName, isLate: boolean): TestOutcome {
  const message = isLate ? timeoutMessage(stage) : explainDockerError(error);
  const dockerError = findDockerError(error);
  if (dockerError instanceof SshError) return { ...toSshOutcome(dockerError), message };
  if (dockerError instanceof DialError) return { status: dockerError.testStatus, message, hostKey: null };
  const isRefused = findTlsErrorReason(error) === 'client_refused';
  // A proxy in front of the engine may refuse some of its calls.
  const isForbidden = stage === 'permission' && dockerError instanceof EngineResponseError;
  const status = isRefused ? 'auth_failed' : isForbidden ? 'forbidden' : (STATUS_BY_STAGE[stage] ?? 'error');
  return { status, message, hostKey: null };
}

function timeoutMessage(name: TestStageName): string {
  return name === 'workspace'
    ? 'The container did not start in time. If the engine is still pulling the image, test again in a minute.'
    : 'The engine took too long.';
}
