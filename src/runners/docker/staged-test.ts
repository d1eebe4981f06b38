import { findTlsErrorReason } from '../../lib/net/tls-connector.ts';
import { SshError } from '../../lib/ssh/ssh-error.ts';
import type { ServerTestResult, TargetServer, TestStageName } from '../runner.ts';
import { runTestSteps, toSshOutcome, type TestOutcome, type TestStep } from '../test-stages.ts';
import { toEngineConnection, type DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { DockerError, explainDockerError, findDockerError } from './errors.ts';
import { createContainerStages } from './container-stages.ts';
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
  permission: 'forbidden',
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

function toTestOutcome(error: unknown, stage: TestStageName, isLate: boolean): TestOutcome {
  const message = isLate ? timeoutMessage(stage) : explainDockerError(error);
  const dockerError = findDockerError(error);
  if (dockerError instanceof SshError) return { ...toSshOutcome(dockerError), message };
  const isRefused = findTlsErrorReason(error) === 'client_refused';
  return { status: isRefused ? 'auth_failed' : (STATUS_BY_STAGE[stage] ?? 'error'), message, hostKey: null };
}

function timeoutMessage(name: TestStageName): string {
  return name === 'workspace'
    ? 'The container did not start in time. If the engine is still pulling the image, test again in a minute.'
    : 'The engine took too long.';
}
