import type { Duplex } from 'node:stream';
import { setTimeout as rest } from 'node:timers/promises';
import type { ExitEvent, Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { createContainerSpec, containerLabels, containerName, type ContainerPurpose } from './containers.ts';
import { assertLimitsKept } from './limit-warnings.ts';
import type { CreatedContainer, Engine, ExitWait } from './engine.ts';
import { EngineResponseError } from './errors.ts';
import { pullImage } from './images.ts';

type Cleanup = ExitEvent['cleanup'];

const REMOVAL_TIMEOUT_MS = 10_000;
const REMOVAL_POLL_MS = 50;
const STALE_MS = 60_000;

/** A container that runs its launcher, with everything attached that a job needs. It serves one job. */
export interface DockerSession {
  readonly id: string;
  /** Its standard input, and its multiplexed output. */
  readonly stream: Duplex;
  readonly exitWait: ExitWait;
}

export interface DockerSessionRequest {
  target: TargetServer<DockerConfig>;
  /** Null: the defaults. */
  limits: Limits | null;
  purpose: ContainerPurpose;
  /** Of the container: as it is known from the start, it can be removed even if the engine's answer is lost. */
  name: string;
  runId?: string;
  /** Of this process, to be told apart in the engine. */
  instance: string;
}

/**
 * Makes a container, and starts it once its output and its end are listened to: an engine keeps neither for those
 * who come later. An image that is missing is fetched. On failure nothing is left behind, as far as the engine
 * can be reached; nor is a container used that the engine made without one of its limits.
 * @throws what the engine throws, DockerFault, or the signal's reason.
 */
export async function openDockerSession(
  engine: Engine,
  request: DockerSessionRequest,
  signal: AbortSignal,
): Promise<DockerSession> {
  const { target, limits, name } = request;
  const spec = createContainerSpec(target.config, limits, containerLabels(target, request));
  let stream: Duplex | undefined;
  let exitWait: ExitWait | undefined;
  try {
    const { id, warnings } = await createContainer(engine, name, spec, target.config.image, signal);
    assertLimitsKept(warnings);
    signal.throwIfAborted();
    // The order of these three matters, the first two among themselves do not.
    [stream, exitWait] = await settleBoth(engine.attach(id), engine.wait(id, 'next-exit'));
    signal.throwIfAborted();
    await engine.start(id);
    return { id, stream, exitWait };
  } catch (error) {
    stream?.destroy();
    exitWait?.stop();
    await engine.remove(name).catch(() => undefined);
    throw error;
  }
}

async function settleBoth(
  attaching: Promise<Duplex>,
  waiting: Promise<ExitWait>,
): Promise<[Duplex, ExitWait]> {
  const [stream, exitWait] = await Promise.allSettled([attaching, waiting]);
  if (stream.status === 'fulfilled' && exitWait.status === 'fulfilled') return [stream.value, exitWait.value];
  if (stream.status === 'fulfilled') stream.value.destroy();
  if (exitWait.status === 'fulfilled') exitWait.value.stop();
  throw stream.status === 'rejected' ? stream.reason : (exitWait as PromiseRejectedResult).reason;
}

async function createContainer(
  engine: Engine,
  name: string,
  spec: ReturnType<typeof createContainerSpec>,
  image: string,
  signal: AbortSignal,
): Promise<CreatedContainer> {
  try {
    return await engine.create(name, spec);
  } catch (error) {
    if (!(error instanceof EngineResponseError && error.status === 404 && /image/i.test(error.responseText)))
      throw error;
  }
  signal.throwIfAborted();
  await pullImage(engine, image, signal);
  return await engine.create(name, spec);
}

/** Ends what is attached. The container is another matter. */
export function detachSession(session: DockerSession): void {
  session.stream.destroy();
  session.exitWait.stop();
}

/** Removes a container and looks: `verified` when the engine does not know it any more. Never throws. */
export async function removeContainer(engine: Engine, id: string): Promise<Cleanup> {
  const deadlineMs = performance.now() + REMOVAL_TIMEOUT_MS;
  try {
    for (;;) {
      await engine.remove(id);
      if ((await engine.inspect(id)) === undefined) return 'verified';
      // Somebody else is removing it, or its processes hang in the kernel.
      if (performance.now() > deadlineMs) return 'unverified';
      await rest(REMOVAL_POLL_MS);
    }
  } catch {
    return 'unverified';
  }
}

/** Removes every container of a run, and looks. Never throws. */
export async function removeRunContainers(
  engine: Engine,
  target: TargetServer,
  runId: string,
): Promise<Cleanup> {
  const filter = { labels: containerLabels(target, {}), name: containerName(runId) };
  try {
    const found = await engine.list(filter);
    await Promise.all(found.map(({ id }) => removeContainer(engine, id)));
    return (await engine.list(filter)).length === 0 ? 'verified' : 'unverified';
  } catch {
    return 'unverified';
  }
}

/**
 * Removes containers that waited for a process that is no more: they have lost their input, and so have ended.
 * @param staleMs how old one must be that does not run, since others may just be making it
 */
export async function removeStaleContainers(
  engine: Engine,
  target: TargetServer,
  staleMs = STALE_MS,
): Promise<void> {
  const found = await engine.list({ labels: containerLabels(target, { purpose: 'warm' }) });
  const latestMs = Date.now() - staleMs;
  const stale = found.filter(({ state, createdMs }) => state !== 'running' && createdMs < latestMs);
  await Promise.all(stale.map(({ id }) => removeContainer(engine, id)));
}
