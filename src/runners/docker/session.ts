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
 * Time that an engine has after an abort to finish creating a container. Until then it is unknown whether
 * there is a container to remove.
 */
const CREATE_GRACE_MS = 3_000;

/**
 * Creates a container. It is started after attaching to its output and waiting for its exit, because an
 * engine stores neither. A missing image is pulled. A container that lacks one of its limits is not used.
 * After a failure, the caller removes the container by its name.
 * @param signal also aborts the calls in flight, because an engine may never respond.
 * @throws errors of the engine, DockerError, or the signal's reason.
 */
export async function openDockerSession(
  engine: Engine,
  request: DockerSessionRequest,
  signal: AbortSignal,
): Promise<DockerSession> {
  const { target, limits, name } = request;
  const spec = createContainerSpec(target.config, limits, containerLabels(target, request));
  const create = (late: AbortSignal) => engine.create(name, spec, late);
  const { id, warnings } = await createContainer(engine, create, target.config.image, signal);
  assertLimitsKept(warnings);
  // Attach and wait may run in any order, but both before start.
  const [stream, exitWait] = await settleBoth(
    engine.attach(id, signal),
    engine.wait(id, 'next-exit', signal),
  );
  const session = { id, stream, exitWait };
  try {
    await engine.start(id, signal);
    return session;
  } catch (error) {
    detachSession(session);
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
  create: (late: AbortSignal) => Promise<CreatedContainer>,
  image: string,
  signal: AbortSignal,
): Promise<CreatedContainer> {
  try {
    return await withGrace(create, signal);
  } catch (error) {
    if (!(error instanceof EngineResponseError && error.status === 404 && /image/i.test(error.responseText)))
      throw error;
  }
  await pullImage(engine, image, signal);
  return await withGrace(create, signal);
}

/** Starts `work` unless the signal is aborted. After an abort, it may take `CREATE_GRACE_MS` more. */
async function withGrace<T>(work: (late: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = () => {
    timer = setTimeout(() => late.abort(signal.reason), CREATE_GRACE_MS);
  };
  signal.addEventListener('abort', onAbort);
  try {
    return await work(late.signal);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

/** Closes the attached streams. Does not remove the container. */
export function detachSession(session: DockerSession): void {
  session.stream.destroy();
  session.exitWait.stop();
}
