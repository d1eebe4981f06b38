import type { Target, TestResult } from '../runner.ts';
import { routeOf, type DockerConfig } from './config.ts';
import type { Engine } from './engine.ts';
import { DockerFault } from './faults.ts';
import { createProbe } from './probe.ts';
import { reachBySsh, reachByTls, type ReachDeps } from './reach.ts';
import { takeSteps, type Step } from './steps.ts';

/** Tries an engine stage by stage, with a container of its own, which is gone afterwards. */
export async function testEngine(
  target: Target<DockerConfig>,
  deps: ReachDeps & { instance: string },
  signal: AbortSignal,
): Promise<TestResult> {
  signal.throwIfAborted();
  const byTls = routeOf(target.config).kind === 'tls';
  const reach = byTls ? reachByTls(target, deps) : reachBySsh(target, deps);
  const probe = createProbe(reach.engine, target, deps.instance);
  try {
    return await takeSteps([...reach.steps, permission(reach.engine), ...probe.steps], signal);
  } finally {
    await probe.close();
    reach.close();
  }
}

function permission(engine: Engine): Step {
  return [
    'permission',
    async (signal) => {
      const { os } = await engine.version(signal);
      if (os !== 'linux') throw new DockerFault('The engine does not run Linux containers.');
      const { canLimit } = await engine.info(signal);
      const names = { memoryBytes: 'memory', cpus: 'CPUs', pids: 'processes' };
      const missing = (['memoryBytes', 'cpus', 'pids'] as const).filter((limit) => !canLimit[limit]);
      const rights = 'The engine may be used. Whoever may use it has the rights of root on its host.';
      if (missing.length === 0) return rights;
      return `${rights} It cannot limit ${missing.map((limit) => names[limit]).join(', ')}.`;
    },
  ];
}
