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

/** Tries an engine stage by stage, with a container of its own, which is gone afterwards. */
export async function testEngine(
  target: TargetServer<DockerConfig>,
  deps: DockerConnectionDeps & { instance: string },
  signal: AbortSignal,
): Promise<ServerTestResult> {
  signal.throwIfAborted();
  const byTls = toEngineRoute(target.config).kind === 'tls';
  const connection = byTls
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
      const rights = 'The engine may be used. Whoever may use it has the rights of root on its host.';
      if (missing.length === 0) return rights;
      return `${rights} It cannot limit ${missing.map((limit) => names[limit]).join(', ')}.`;
    },
  ];
}
