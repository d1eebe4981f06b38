import { randomId } from '../../lib/ids.ts';
import type { Log } from '../../lib/log.ts';
import type { Owner } from '../../lib/owner.ts';
import { listServerVersions, type Limits, type TargetServer } from '../runner.ts';
import { removeContainer, removeStaleContainers } from './cleanup.ts';
import type { DockerConfig } from './config.ts';
import { areDefaultLimits, containerName } from './containers.ts';
import { createEngine, type Engine } from './engine.ts';
import type { EngineDeps } from './engine-connector.ts';
import { detachSession, openDockerSession, type DockerSession } from './session.ts';

/** Cached engines, each with at most one pre-started container for the next job of its server. */
export interface EnginePool {
  /**
   * The server's cached engine. A job with an outdated version of the server gets an engine that is not
   * cached.
   */
  getEngine(target: TargetServer<DockerConfig>): Engine;
  /**
   * Takes the pre-started container if its limits match, and gives it the run's name before it receives the
   * job, so that cleanup can always find it. Each container serves one job.
   */
  takeWarm(
    target: TargetServer<DockerConfig>,
    limits: Limits,
    runId: string,
    signal: AbortSignal,
  ): Promise<DockerSession | undefined>;
  /** Starts the next container in the background. */
  prewarm(target: TargetServer<DockerConfig>): void;
  /** Both take some seconds at most, also while an engine does not respond. */
  release(serverId: string): Promise<void>;
  /** The same for all servers of an owner. */
  releaseOwner(owner: Owner): Promise<void>;
  /** Owners of the engines. */
  listOwners(): Owner[];
  close(): Promise<void>;
}

export interface EnginePoolOptions extends EngineDeps {
  log: Log;
  /** Id of this process. */
  instance: string;
  /** How long the container and the connections of a server are kept without a job. */
  idleMs: number;
}

/** How long released versions are remembered: longer than a job can hold an outdated server. */
const REMEMBER_RELEASED_MS = 60 * 60_000;
/** For each of the two attempts to remove a container when its server is released. */
const RELEASE_REMOVAL_MS = 3_000;

/** Cached state of one version of one server. */
interface PooledEngine {
  owner: Owner;
  versions: readonly number[];
  engine: Engine;
  /** Settles when the container is ready. Undefined if none is being started. */
  starting: Promise<DockerSession | undefined> | undefined;
  warm: DockerSession | undefined;
  isClosed: boolean;
  /** Containers that still have to be removed. */
  unremoved: Set<string>;
  idle: NodeJS.Timeout;
  stop: AbortController;
}

/** Nothing is shared between servers or owners. */
export function createEnginePool(options: EnginePoolOptions): EnginePool {
  const { log, instance, idleMs } = options;
  const entries = new Map<string, PooledEngine>();
  /** Versions released because their server was changed or deleted. */
  const releasedVersions = new Map<string, readonly number[]>();
  const closing = new Set<Promise<void>>();

  /** @returns undefined for an outdated version of a server. */
  function findEntry(target: TargetServer<DockerConfig>): PooledEngine | undefined {
    const { serverId, owner } = target;
    const versions = listServerVersions(target);
    const current = entries.get(serverId);
    if (current?.owner === owner) {
      const order = compareVersions(versions, current.versions);
      if (order === 0) current.idle.refresh();
      if (order <= 0) return order === 0 ? current : undefined;
    }
    const released = releasedVersions.get(serverId);
    if (released !== undefined && compareVersions(versions, released) <= 0) return undefined;
    if (current !== undefined) void removeEntry(serverId, current);
    const entry: PooledEngine = {
      owner,
      versions,
      engine: createEngine(target, options),
      starting: undefined,
      warm: undefined,
      isClosed: false,
      unremoved: new Set(),
      idle: setTimeout(() => void removeEntry(serverId, entry), idleMs).unref(),
      stop: new AbortController(),
    };
    entries.set(serverId, entry);
    return entry;
  }

  function rememberReleased(serverId: string, versions: readonly number[]): void {
    releasedVersions.set(serverId, versions);
    setTimeout(() => {
      if (releasedVersions.get(serverId) === versions) releasedVersions.delete(serverId);
    }, REMEMBER_RELEASED_MS).unref();
  }

  function removeEntry(serverId: string, entry: PooledEngine): Promise<void> {
    if (entries.get(serverId) === entry) entries.delete(serverId);
    const done = closePooledEngine(entry).finally(() => closing.delete(done));
    closing.add(done);
    return done;
  }

  return {
    getEngine: (target) => findEntry(target)?.engine ?? createUnpooledEngine(target, options),
    async takeWarm(target, limits, runId, signal) {
      const entry = findEntry(target);
      const session = entry?.warm;
      if (entry === undefined || session === undefined || !areDefaultLimits(limits)) return undefined;
      entry.warm = undefined;
      try {
        await entry.engine.rename(session.id, containerName(runId), signal);
        return session;
      } catch {
        // The container or the engine is gone. Creating a new container reports the reason.
        detachSession(session);
        // Not ended by a release of the server meanwhile, which does not know of this container.
        void removeOrRetryLater(entry, session.id);
        return undefined;
      }
    },
    prewarm(target) {
      const entry = findEntry(target);
      if (entry === undefined || entry.warm !== undefined) return;
      entry.starting ??= startWarmContainer(entry, target, instance)
        .catch((error: unknown) => {
          if (!entry.isClosed)
            log.debug({ err: error, server: target.serverId }, 'could not pre-start a container');
          return undefined;
        })
        .finally(() => {
          entry.starting = undefined;
        });
    },
    async release(serverId) {
      const entry = entries.get(serverId);
      if (entry === undefined) return;
      rememberReleased(serverId, entry.versions);
      await removeEntry(serverId, entry);
    },
    async releaseOwner(owner) {
      const own = [...entries].filter(([, entry]) => entry.owner === owner);
      // Not `release`: the servers are unchanged, and their owner may be enabled again.
      await Promise.all(own.map(([serverId, entry]) => removeEntry(serverId, entry)));
    },
    listOwners: () => [...new Set(Array.from(entries.values(), ({ owner }) => owner))],
    async close() {
      for (const [serverId, entry] of entries) void removeEntry(serverId, entry);
      await Promise.all(closing);
    },
  };
}

/** An engine that keeps no idle connections and therefore needs no closing. */
function createUnpooledEngine(target: TargetServer<DockerConfig>, deps: EngineDeps): Engine {
  const engine = createEngine(target, deps);
  engine.closeWhenIdle();
  return engine;
}

/** Negative if `a` is older. The servers in the chain can only change if an earlier version has increased. */
function compareVersions(a: readonly number[], b: readonly number[]): number {
  const at = a.findIndex((version, index) => version !== b[index]);
  return at === -1 ? a.length - b.length : (a[at] ?? 0) - (b[at] ?? 0);
}

async function startWarmContainer(
  entry: PooledEngine,
  target: TargetServer<DockerConfig>,
  instance: string,
): Promise<DockerSession | undefined> {
  const { engine, stop } = entry;
  const name = `ops-center-warm-${randomId(20)}`;
  const { signal } = stop;
  await Promise.all([removeStaleContainers(engine, target, { signal }), retryRemovals(entry, signal)]);
  const request = { target, limits: null, purpose: 'warm', name, instance } as const;
  const session = await openDockerSession(engine, request, signal).catch(async (error: unknown) => {
    await removeOrRetryLater(entry, name, signal);
    throw error;
  });
  if (entry.isClosed) return session;
  entry.warm = session;
  session.stream.once('close', () => {
    if (entry.warm !== session) return;
    // The container ended before it was used, e.g. because the engine restarted.
    entry.warm = undefined;
    detachSession(session);
    void removeOrRetryLater(entry, session.id, signal);
  });
  return session;
}

/**
 * Removes the waiting container. The engine's connections close as they become idle. What cannot be removed
 * ends without its input, and the next app that uses the server removes it.
 */
async function closePooledEngine(entry: PooledEngine): Promise<void> {
  entry.isClosed = true;
  clearTimeout(entry.idle);
  entry.stop.abort(new Error('the engine was released'));
  const sessions = [entry.warm, await entry.starting];
  entry.warm = undefined;
  for (const session of sessions) {
    if (session === undefined) continue;
    detachSession(session);
    entry.unremoved.add(session.id);
  }
  await retryRemovals(entry, AbortSignal.timeout(RELEASE_REMOVAL_MS));
  // The second attempt needs new connections: an idle one may lead to an engine that does not respond.
  entry.engine.closeWhenIdle();
  await retryRemovals(entry, AbortSignal.timeout(RELEASE_REMOVAL_MS));
}

/**
 * Removes a container. A failure is retried later, because the engine may be unreachable for a while.
 * @param signal ends the attempt. Releasing the server makes another.
 */
async function removeOrRetryLater(
  entry: PooledEngine,
  idOrName: string,
  signal?: AbortSignal,
): Promise<void> {
  entry.unremoved.add(idOrName);
  if ((await removeContainer(entry.engine, idOrName, signal)) === 'verified')
    entry.unremoved.delete(idOrName);
}

async function retryRemovals(entry: PooledEngine, signal: AbortSignal): Promise<void> {
  await Promise.all([...entry.unremoved].map((idOrName) => removeOrRetryLater(entry, idOrName, signal)));
}
