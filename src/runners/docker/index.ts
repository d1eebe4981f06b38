import { randomId } from '../../lib/ids.ts';
import type { Log } from '../../lib/log.ts';
import { removeRunContainers, removeStaleContainers } from './cleanup.ts';
import { dockerConfig, toEngineConnection, type DockerConfig } from './config.ts';
import { containerName } from './containers.ts';
import { createEngine } from './engine.ts';
import { createEnginePool } from './engine-pool.ts';
import type { DockerConnectionDeps } from './connection-stages.ts';
import { runDockerJob, type DockerRunDeps } from './run.ts';
import { openDockerSession } from './session.ts';
import { testEngine } from './staged-test.ts';
import type { Runner, TargetServer } from '../runner.ts';
import { runWithSetup } from '../setup.ts';
import { getInterpreter, missingInImageMessage } from '../shell.ts';

export interface DockerRunnerDeps extends DockerConnectionDeps {
  log: Log;
  /** How long a pre-started container is kept without a job. */
  warmIdleMs?: number;
  /** Interval of engine pings while a job runs. */
  heartbeatMs?: number;
}

const WARM_IDLE_MS = 10 * 60_000;
const HEARTBEAT_MS = 10_000;

/**
 * Runs jobs in containers on a user's Docker engine, reached over TLS with a client certificate or through
 * SSH.
 */
export function createDockerRunner(deps: DockerRunnerDeps): Runner<DockerConfig> {
  const { log, warmIdleMs = WARM_IDLE_MS, heartbeatMs = HEARTBEAT_MS } = deps;
  const instance = randomId();
  const enginePool = createEnginePool({ ...deps, log, instance, idleMs: warmIdleMs });

  function createRunDeps(target: TargetServer<DockerConfig>): DockerRunDeps {
    const engine = enginePool.getEngine(target);
    return {
      engine,
      target,
      heartbeatMs,
      async openJobSession(limits, runId, signal) {
        const warm = await enginePool.takeWarm(target, limits, runId, signal);
        if (warm !== undefined) return warm;
        const request = {
          target,
          limits,
          purpose: 'run',
          name: containerName(runId),
          runId,
          instance,
        } as const;
        return await openDockerSession(engine, request, signal);
      },
      openCleanupSession(runId, signal) {
        const name = `${containerName(runId)}-files`;
        const request = { target, limits: null, purpose: 'run', name, runId, instance } as const;
        return openDockerSession(engine, request, signal);
      },
      onStarted: () => enginePool.prewarm(target),
    };
  }

  return {
    type: 'docker',
    config: dockerConfig,
    secretFields: ['client_key', 'environment', 'setup'],
    needsHostKey: false,
    // Code in the image and in the volumes can read environment and set-up, so both are part of their destination.
    destination: ({ host, ca, environment, setup, image, volumes }) => ({
      ...{ type: 'docker', host, ca },
      ...((environment !== null || setup !== null) && { image, volumes }),
    }),
    jumpServerIds(config) {
      const route = toEngineConnection(config);
      return route.kind === 'ssh' ? [route.serverId] : [];
    },
    unenforceableLimits: () => [],
    test: (target, signal) => testEngine(target, { ...deps, instance }, signal),
    run: (target, job, limits, signal) =>
      runWithSetup(
        target.config.setup,
        missingInImageMessage(target.config.image, getInterpreter(job.program).names[0]),
        (setup) => runDockerJob({ ...createRunDeps(target), setup }, job, limits, signal),
      ),
    async cleanUp(target, runId) {
      const engine = createEngine(target, deps);
      try {
        await removeStaleContainers(engine, target).catch(() => undefined);
        return await removeRunContainers(engine, target, runId);
      } finally {
        engine.close();
      }
    },
    release: (serverId) => enginePool.release(serverId),
    releaseOwner: (owner) => enginePool.releaseOwner(owner),
    listOwners: () => enginePool.listOwners(),
    close: () => enginePool.close(),
  };
}
