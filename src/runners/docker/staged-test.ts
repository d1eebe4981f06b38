import type { TargetServer, ServerTestResult } from '../runner.ts';
import { toEngineRoute, type DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { DockerError } from './errors.ts';
import { createContainerStages } from './container-stages.ts';
import {
  createSshConnectionStages,
  createTlsConnectionStages,
  type DockerConnectionDeps,
} from './connection-stages.ts';
import { runDockerTestSteps, type DockerTestStep } from './test-steps.ts';

/** Tests an engine stage by stage with its own container, which is removed afterwards. */
export async function testEngine(
  target: TargetServer<DockerConfig>,
  deps: DockerConnectionDeps & { instance: string },
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const isTls = toEngineRoute(target.config).kind === 'tls';
  const connection = isTls
    ? createTlsConnectionStages(target, deps)
    : createSshConnectionStages(target, deps);
  const container = createContainerStages(connection.engine, target, deps.instance);
  try {
    return await runDockerTestSteps(
      [...connection.steps, createPermissionStep(connection.engine), ...container.steps],
      signal,
    );
  } finally {
    await container.close();
    connection.close();
  }
}

function createPermissionStep(engine: Engine): DockerTestStep {
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
