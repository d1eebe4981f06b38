import { randomId } from '../../lib/ids.ts';
import type { Log } from '../../lib/log.ts';
import type { Owner } from '../../lib/owner.ts';
import type { Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { areDefaultLimits } from './containers.ts';
import { createEngine, type Engine, type EngineDeps } from './engine.ts';
import {
  detachSession,
  openDockerSession,
  removeContainer,
  removeStaleContainers,
  type DockerSession,
} from './session.ts';

/** Engines in use, each with at most one container that waits for the next job of its server. */
export interface EnginePool {
  /**
   * The server's engine, kept for its next job too. A job may still hold a server as it was before it was changed or
   * deleted: it gets an engine of its own, of which nothing is kept.
   */
  getEngine(target: TargetServer<DockerConfig>): Engine;
  /** The waiting container, if its limits will do: used once. */
  takeWarm(target: TargetServer<DockerConfig>, limits: Limits): DockerSession | undefined;
  /** Makes the next one, in the background. */
  prewarm(target: TargetServer<DockerConfig>): void;
  forget(serverId: string): Promise<void>;
  close(): Promise<void>;
}

export interface EnginePoolOptions extends EngineDeps {
  log: Log;
  /** Of this process. */
  instance: string;
  /** How long a server may go without a job before its container and connections are let go. */
  idleMs: number;
}

/** The versions of a server and of those that it goes through, in this order: they only rise. */
type VersionChain = readonly number[];

/** How long an older state of a server is known as such: longer than a job takes to come here with one. */
const REMEMBER_RELEASED_MS = 60 * 60_000;

/** What is kept for one version of one server. */
interface PooledEngine {
  owner: Owner;
  versions: VersionChain;
  engine: Engine;
  /** Settles when the container waits; undefined where there is none. */
  starting: Promise<DockerSession | undefined> | undefined;
  warm: DockerSession | undefined;
  isClosed: boolean;
  /** Containers that could not be removed so far. */
  unremoved: Set<string>;
  idle: NodeJS.Timeout;
  stop: AbortController;
}

/** Nothing is shared between servers, and so nothing between owners. */
export function createEnginePool(options: EnginePoolOptions): EnginePool {
  const { log, instance, idleMs } = options;
  const entries = new Map<string, PooledEngine>();
  /** What was let go of since its server was changed or deleted. */
  const releasedVersions = new Map<string, VersionChain>();
  const closing = new Set<Promise<void>>();

  /** @returns undefined for a server as it is no more. */
  function findEntry(target: TargetServer<DockerConfig>): PooledEngine | undefined {
    const { serverId, owner } = target;
    const versions = toVersionChain(target);
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

  function rememberReleased(serverId: string, versions: VersionChain): void {
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
    takeWarm(target, limits) {
      const entry = findEntry(target);
      const ready = entry?.warm;
      if (entry === undefined || ready === undefined || !areDefaultLimits(limits)) return undefined;
      entry.warm = undefined;
      return ready;
    },
    prewarm(target) {
      const entry = findEntry(target);
      if (entry === undefined || entry.warm !== undefined) return;
      entry.starting ??= startWarmContainer(entry, target, instance)
        .catch((error: unknown) => {
          if (!entry.isClosed)
            log.debug({ err: error, server: target.serverId }, 'no container was made in advance');
          return undefined;
        })
        .finally(() => {
          entry.starting = undefined;
        });
    },
    async forget(serverId) {
      const entry = entries.get(serverId);
      if (entry === undefined) return;
      rememberReleased(serverId, entry.versions);
      await removeEntry(serverId, entry);
    },
    async close() {
      for (const [serverId, entry] of entries) void removeEntry(serverId, entry);
      await Promise.all(closing);
    },
  };
}

/** An engine that keeps no idle connection, so that nobody needs to let go of it. */
function createUnpooledEngine(target: TargetServer<DockerConfig>, deps: EngineDeps): Engine {
  const engine = createEngine(target, deps);
  engine.closeWhenIdle();
  return engine;
}

function toVersionChain({ version, jumpServers }: TargetServer): VersionChain {
  // At most one each: a Docker server goes through one SSH server, and that one through at most one jump server.
  return [version, ...[...jumpServers.values()].flatMap(toVersionChain)];
}

/** Below 0 where `a` is older: the way can only be another one where a version before it has risen. */
function compareVersions(a: VersionChain, b: VersionChain): number {
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
  await Promise.all([removeStaleContainers(engine, target), retryRemovals(entry)]);
  const request = { target, limits: null, purpose: 'warm', name, instance } as const;
  const session = await openDockerSession(engine, request, stop.signal).catch(async (error: unknown) => {
    await removeOrRetryLater(entry, name);
    throw error;
  });
  if (entry.isClosed) return session;
  entry.warm = session;
  session.stream.once('close', () => {
    if (entry.warm !== session) return;
    // It ended before it was used, e.g. because the engine was restarted.
    entry.warm = undefined;
    detachSession(session);
    void removeOrRetryLater(entry, session.id);
  });
  return session;
}

/** Lets go of what waits; the engine's connections go as they become idle. */
async function closePooledEngine(entry: PooledEngine): Promise<void> {
  entry.isClosed = true;
  clearTimeout(entry.idle);
  entry.stop.abort(new Error('let go'));
  const sessions = [entry.warm, await entry.starting];
  entry.warm = undefined;
  for (const session of sessions) {
    if (session === undefined) continue;
    detachSession(session);
    await removeOrRetryLater(entry, session.id);
  }
  await retryRemovals(entry);
  entry.engine.closeWhenIdle();
}

/** Removes a container, or remembers to try again: the engine may be away for a while. */
async function removeOrRetryLater(entry: PooledEngine, idOrName: string): Promise<void> {
  if ((await removeContainer(entry.engine, idOrName)) === 'verified') entry.unremoved.delete(idOrName);
  else entry.unremoved.add(idOrName);
}

async function retryRemovals(entry: PooledEngine): Promise<void> {
  await Promise.all([...entry.unremoved].map((idOrName) => removeOrRetryLater(entry, idOrName)));
}
