import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { parseJson } from '../../lib/json.ts';
import type { Limits, TargetServer } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { createContainerSpec, containerLabels, type ContainerPurpose } from './containers.ts';
import type { CreatedContainer, Engine, ExitWait } from './engine.ts';
import { DialStartError } from './dial-error.ts';
import { cannotLimitMessage, DockerError, EngineResponseError, findDockerError } from './errors.ts';

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

/** The engine was not asked to create the container, so there is none to remove. Its cause has the reason. */
export class ContainerNotRequestedError extends Error {
  override readonly name = 'ContainerNotRequestedError';
}

/**
 * Time that an engine has after an abort to finish creating a container. Until then it is unknown whether
 * there is a container to remove.
 */
const CREATE_GRACE_MS = 3_000;

/**
 * Creates a container. It is started after attaching to its output and waiting for its exit, because an
 * engine stores neither. A missing image is pulled. A container that lacks one of its limits is not used.
 * After a failure other than ContainerNotRequestedError, the caller removes the container by its name.
 * @param signal also aborts the calls in flight, because an engine may never respond.
 * @throws ContainerNotRequestedError, errors of the engine, DockerError, or the signal's reason.
 */
export async function openDockerSession(
  engine: Engine,
  request: DockerSessionRequest,
  signal: AbortSignal,
): Promise<DockerSession> {
  const { target, limits, name } = request;
  const spec = createContainerSpec(target.config, limits, containerLabels(target, request));
  const create = (late: AbortSignal) => engine.create(name, spec, late);
  const { id, warnings } = await createContainer(engine, create, target.config.image, signal).catch(
    (cause: unknown) => {
      throw findDockerError(cause) instanceof DialStartError
        ? new ContainerNotRequestedError('the container was not requested', { cause })
        : cause;
    },
  );
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

const progressLine = z.object({ error: z.string().nullish() });

/**
 * Pulls an image that the engine does not have.
 * @throws DockerError if the registry refuses; errors of the engine; the reason of `signal`.
 */
async function pullImage(engine: Engine, image: string, signal: AbortSignal): Promise<void> {
  try {
    for await (const line of engine.pull(image, signal)) {
      const failure = findPullFailure(line);
      if (failure !== undefined) throw toPullError(image, failure);
    }
  } catch (error) {
    signal.throwIfAborted();
    throw error instanceof EngineResponseError ? toPullError(image, error.responseText) : error;
  }
}

function findPullFailure(line: string): string | undefined {
  return progressLine.safeParse(parseJson(line)).data?.error ?? undefined;
}

function toPullError(image: string, failure: string): DockerError {
  const start = `The image ${image} is not on the engine and cannot be pulled:`;
  if (/not found|manifest unknown|does not exist|access denied|unauthorized/i.test(failure))
    return new DockerError(`${start} its registry does not have it, or requires a login.`);
  if (/no space left/i.test(failure)) return new DockerError(`${start} the engine's host has no space left.`);
  return new DockerError(
    `${start} the engine cannot reach the registry. Load the image on the engine, or choose another.`,
  );
}

/**
 * An engine creates a container without a limit that its kernel or its rights do not allow, and reports that
 * in a warning. The texts differ between versions, so only parts are matched.
 */
const LIMIT_DROPPED = /discarded|ignored|not support/i;
const LIMITS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/memory limit\b/i, 'memory'],
  [/\bpids\b/i, 'processes'],
  [/cpu/i, 'CPUs'],
];
/**
 * Without a swap limit, memory is still limited but may be swapped out. Cgroup namespaces are never
 * requested.
 */
const HARMLESS = /swap limit|cgroup namespace/i;

/**
 * Refuses a container that lacks one of its limits. Default limits count too, because they protect the
 * engine's host. Other warnings, e.g. about disabled IP forwarding, are ignored.
 * @param warnings from the response to "Create a container" (Engine API).
 * @throws DockerError that names the limits without quoting the engine.
 */
function assertLimitsKept(warnings: readonly string[]): void {
  const lostLimits = warnings.filter((warning) => LIMIT_DROPPED.test(warning)).map(findLostLimit);
  const names = new Set(lostLimits.filter((name) => name !== undefined));
  if (names.size > 0) throw new DockerError(cannotLimitMessage([...names].join(', ')));
}

/**
 * The limit that a warning is about. An unknown warning may be about any limit, so the container is refused.
 */
function findLostLimit(warning: string): string | undefined {
  const known = LIMITS.find(([pattern]) => pattern.test(warning));
  if (known !== undefined) return known[1];
  return HARMLESS.test(warning) ? undefined : 'what a container may use';
}
