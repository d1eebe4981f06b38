import type { Duplex } from 'node:stream';
import type { Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { createContainerSpec, containerLabels, type ContainerPurpose } from './containers.ts';
import { assertLimitsKept } from './limit-warnings.ts';
import type { CreatedContainer, Engine, ExitWait } from './engine.ts';
import { EngineResponseError } from './errors.ts';
import { pullImage } from './images.ts';

/** A container that runs its launcher, with its streams attached. It serves one job. */
export interface DockerSession {
  readonly id: string;
  /** Standard input and multiplexed output of the container. */
  readonly stream: Duplex;
  readonly exitWait: ExitWait;
}

export interface DockerSessionRequest {
  target: TargetServer<DockerConfig>;
  /** Null: the defaults. */
  limits: Limits | null;
  purpose: ContainerPurpose;
  /**
   * Name of the container. It is known in advance, so that the container can be removed even if the engine's
   * response is lost.
   */
  name: string;
  runId?: string;
  /** Id of this process, which distinguishes instances on the engine. */
  instance: string;
}

/**
 * Creates a container. It is started after attaching to its output and waiting for its exit, because an
 * engine stores neither. A missing image is pulled. On failure the container is removed, as far as the engine
 * can be reached. A container that lacks one of its limits is not used.
 * @throws errors of the engine, DockerError, or the signal's reason.
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
    // Attach and wait may run in any order, but both before start.
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

/** Closes the attached streams. Does not remove the container. */
export function detachSession(session: DockerSession): void {
  session.stream.destroy();
  session.exitWait.stop();
}
