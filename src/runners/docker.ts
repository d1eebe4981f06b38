import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { dockerConfig, routeOf, type DockerConfig } from './docker/config.ts';
import { nameOf } from './docker/containers.ts';
import { createEngine } from './docker/engine.ts';
import { createPool } from './docker/pool.ts';
import type { ReachDeps } from './docker/reach.ts';
import { runJob, type Place } from './docker/run.ts';
import { detach, openSession, removeAndLook, removeRun, sweep, type Session } from './docker/session.ts';
import { testEngine } from './docker/staged-test.ts';
import type { Limits, Runner, Target } from './runner.ts';

export interface DockerRunnerDeps extends ReachDeps {
  log: Log;
  /** How long a container that waits for a job is kept without one. */
  warmIdleMs?: number;
  /** How often an engine is asked whether it is still there while a job runs. */
  heartbeatMs?: number;
}

const WARM_IDLE_MS = 10 * 60_000;
const HEARTBEAT_MS = 10_000;

/** Runs jobs in containers of a user's own Docker engine: over TLS with a client certificate, or through SSH. */
export function createDockerRunner(deps: DockerRunnerDeps): Runner<DockerConfig> {
  const { log, warmIdleMs = WARM_IDLE_MS, heartbeatMs = HEARTBEAT_MS } = deps;
  const instance = randomId();
  const pool = createPool({ ...deps, log, instance, idleMs: warmIdleMs });

  /** A container that waits; with its run's name before it knows the job, so that the run can always be found. */
  async function takeWarm(
    target: Target<DockerConfig>,
    limits: Limits,
    runId: string,
  ): Promise<Session | undefined> {
    const session = pool.take(target, limits);
    if (session === undefined) return undefined;
    const engine = pool.engineOf(target);
    try {
      await engine.rename(session.id, nameOf(runId));
      return session;
    } catch {
      // Gone meanwhile, or the engine is: making another one will tell.
      detach(session);
      void removeAndLook(engine, session.id);
      return undefined;
    }
  }

  function placeOf(target: Target<DockerConfig>): Place {
    const engine = pool.engineOf(target);
    return {
      engine,
      target,
      heartbeatMs,
      async open(limits, runId, signal) {
        const warm = await takeWarm(target, limits, runId);
        if (warm !== undefined) return warm;
        const request = { target, limits, purpose: 'run', name: nameOf(runId), runId, instance } as const;
        return await openSession(engine, request, signal);
      },
      openPlain(runId, signal) {
        const name = `${nameOf(runId)}-files`;
        const request = { target, limits: null, purpose: 'run', name, runId, instance } as const;
        return openSession(engine, request, signal);
      },
      onStarted: () => pool.refill(target),
    };
  }

  return {
    type: 'docker',
    config: dockerConfig,
    secretFields: ['client_key', 'environment'],
    needsHostKey: false,
    // The environment is handed to whatever the image holds, beside whatever lies in the volumes.
    destination: ({ host, ca, environment, image, volumes }) => ({
      ...{ type: 'docker', host, ca },
      ...(environment !== null && { image, volumes }),
    }),
    references(config) {
      const route = routeOf(config);
      return route.kind === 'ssh' ? [route.serverId] : [];
    },
    unenforceable: () => [],
    test: (target, signal) => testEngine(target, { ...deps, instance }, signal),
    run: (target, job, limits, signal) => runJob(placeOf(target), job, limits, signal),
    async reap(target, runId) {
      const engine = createEngine(target, deps);
      try {
        await sweep(engine, target).catch(() => undefined);
        return await removeRun(engine, target, runId);
      } finally {
        engine.close();
      }
    },
    forget: (serverId) => pool.forget(serverId),
    close: () => pool.close(),
  };
}
