import { randomBytes } from 'node:crypto';
import { findTlsErrorReason } from '../../lib/net/tls-connector.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { RunEvent, ServerTestResult, TargetServer, TestStageName } from '../runner.ts';
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

/** The launcher, its input watcher, the program, and the program's child. */
const MIN_PROCESSES = 4;

/** Runs one job that prints a nonce, starts a process in its own session, and keeps running. */
function createContainerStages(
  engine: Engine,
  target: TargetServer<DockerConfig>,
  instance: string,
): ContainerStages {
  const nonce = randomBytes(16).toString('hex');
  const runId = `test-${nonce}`;
  const script = createScript(
    createTestJob(runId, nonce),
    target.workspacePath,
    target.config.environment ?? {},
  );
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
    const first = await events.next();
    if (first.done !== true) return 'A container was started with image, volumes and working folder.';
    const { message } = await readDockerExit(engine, session, { ...script, markers });
    throw new DockerError(message ?? 'The container ended before the program started.');
  }

  async function checkEcho(): Promise<undefined> {
    const { events } = getOpened();
    while (!output.includes('\n')) {
      const next = await events.next();
      if (next.done === true) break;
      if (next.value.type === 'output') output += Buffer.from(next.value.data).toString('latin1');
      if (output.length > 4_096) break;
    }
    if (output.trim() !== nonce)
      throw new DockerError(
        'The output of a program did not arrive unchanged. Check whether the image prints something at start.',
      );
  }

  async function checkKill(): Promise<undefined> {
    const { session } = getOpened();
    if ((await engine.countProcesses(session.id)) < MIN_PROCESSES)
      throw new DockerError('The engine does not show the processes of a container.');
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

function createTestJob(runId: string, nonce: string) {
  const command = [
    // In its own session if the image has setsid, so that no signal to a process group reaches it.
    '{ setsid sleep 600 || sleep 600; } >/dev/null 2>&1 &',
    `printf '%s\\n' ${quoteForShell(nonce)}`,
    'sleep 600',
  ].join('\n');
  return { runId, program: { command }, stdin: null, files: [], env: {}, workdir: null };
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
