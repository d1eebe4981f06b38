import type { Duplex } from 'node:stream';
import { setTimeout as rest } from 'node:timers/promises';
import type { ExitEvent, Limits, Target } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { containerSpec, labelsOf, nameOf, type Purpose } from './containers.ts';
import { refuseDiscarded } from './discarded.ts';
import type { CreatedContainer, Engine, Waiting } from './engine.ts';
import { EngineRefusal } from './faults.ts';
import { pullImage } from './images.ts';

type Cleanup = ExitEvent['cleanup'];

const REMOVAL_MS = 10_000;
const REMOVAL_POLL_MS = 50;
const STALE_MS = 60_000;

/** A container that runs its launcher, with everything attached that a job needs. It serves one job. */
export interface Session {
  readonly id: string;
  /** Its standard input, and its multiplexed output. */
  readonly stream: Duplex;
  readonly waiting: Waiting;
}

export interface SessionRequest {
  target: Target<DockerConfig>;
  /** Null: the defaults. */
  limits: Limits | null;
  purpose: Purpose;
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
export async function openSession(
  engine: Engine,
  request: SessionRequest,
  signal: AbortSignal,
): Promise<Session> {
  const { target, limits, name } = request;
  const spec = containerSpec(target.config, limits, labelsOf(target, request));
  let stream: Duplex | undefined;
  let waiting: Waiting | undefined;
  try {
    const { id, warnings } = await create(engine, name, spec, target.config.image, signal);
    refuseDiscarded(warnings);
    signal.throwIfAborted();
    // The order of these three matters, the first two among themselves do not.
    [stream, waiting] = await together(engine.attach(id), engine.wait(id, 'next-exit'));
    signal.throwIfAborted();
    await engine.start(id);
    return { id, stream, waiting };
  } catch (error) {
    stream?.destroy();
    waiting?.stop();
    await engine.remove(name).catch(() => undefined);
    throw error;
  }
}

async function together(attaching: Promise<Duplex>, listening: Promise<Waiting>): Promise<[Duplex, Waiting]> {
  const [stream, waiting] = await Promise.allSettled([attaching, listening]);
  if (stream.status === 'fulfilled' && waiting.status === 'fulfilled') return [stream.value, waiting.value];
  if (stream.status === 'fulfilled') stream.value.destroy();
  if (waiting.status === 'fulfilled') waiting.value.stop();
  throw stream.status === 'rejected' ? stream.reason : (waiting as PromiseRejectedResult).reason;
}

async function create(
  engine: Engine,
  name: string,
  spec: ReturnType<typeof containerSpec>,
  image: string,
  signal: AbortSignal,
): Promise<CreatedContainer> {
  try {
    return await engine.create(name, spec);
  } catch (error) {
    if (!(error instanceof EngineRefusal && error.status === 404 && /image/i.test(error.said))) throw error;
  }
  signal.throwIfAborted();
  await pullImage(engine, image, signal);
  return await engine.create(name, spec);
}

/** Ends what is attached. The container is another matter. */
export function detach(session: Session): void {
  session.stream.destroy();
  session.waiting.stop();
}

/** Removes a container and looks: `verified` when the engine does not know it any more. Never throws. */
export async function removeAndLook(engine: Engine, id: string): Promise<Cleanup> {
  const deadlineMs = performance.now() + REMOVAL_MS;
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
export async function removeRun(engine: Engine, target: Target, runId: string): Promise<Cleanup> {
  const which = { labels: labelsOf(target, {}), name: nameOf(runId) };
  try {
    const found = await engine.list(which);
    await Promise.all(found.map(({ id }) => removeAndLook(engine, id)));
    return (await engine.list(which)).length === 0 ? 'verified' : 'unverified';
  } catch {
    return 'unverified';
  }
}

/**
 * Removes containers that waited for a process that is no more: they have lost their input, and so have ended.
 * @param staleMs how old one must be that does not run, since others may just be making it
 */
export async function sweep(engine: Engine, target: Target, staleMs = STALE_MS): Promise<void> {
  const found = await engine.list({ labels: labelsOf(target, { purpose: 'warm' }) });
  const latestMs = Date.now() - staleMs;
  const stale = found.filter(({ state, createdMs }) => state !== 'running' && createdMs < latestMs);
  await Promise.all(stale.map(({ id }) => removeAndLook(engine, id)));
}
