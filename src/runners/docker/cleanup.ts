import { setTimeout as delay } from 'node:timers/promises';
import type { ExitEvent, TargetServer } from '../runner.ts';
import { containerLabels, containerName } from './containers.ts';
import type { Engine } from './engine.ts';

type Cleanup = ExitEvent['cleanup'];

const REMOVAL_TIMEOUT_MS = 10_000;
const REMOVAL_POLL_MS = 50;
const STALE_MS = 60_000;

/**
 * Removes a container and checks the result. Never throws.
 * @param signal ends the attempt.
 * @returns `verified` if the engine no longer has it.
 */
export async function removeContainer(engine: Engine, id: string, signal?: AbortSignal): Promise<Cleanup> {
  const deadlineMs = performance.now() + REMOVAL_TIMEOUT_MS;
  try {
    for (;;) {
      await engine.remove(id, signal);
      if ((await engine.inspect(id, signal)) === undefined) return 'verified';
      // Another removal is in progress, or its processes hang in the kernel.
      if (performance.now() > deadlineMs) return 'unverified';
      await delay(REMOVAL_POLL_MS);
    }
  } catch {
    return 'unverified';
  }
}

/** Removes every container of a run and checks the result. Never throws. */
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
 * Removes pre-started containers of app instances that have ended. Such containers have lost their input and
 * have therefore ended.
 * @param options.staleMs minimum age of a stopped container, because another instance may be starting it.
 */
export async function removeStaleContainers(
  engine: Engine,
  target: TargetServer,
  { staleMs = STALE_MS, signal }: { staleMs?: number; signal?: AbortSignal } = {},
): Promise<void> {
  const found = await engine.list({ labels: containerLabels(target, { purpose: 'warm' }) }, signal);
  const latestMs = Date.now() - staleMs;
  const stale = found.filter(({ state, createdMs }) => state !== 'running' && createdMs < latestMs);
  await Promise.all(stale.map(({ id }) => removeContainer(engine, id, signal)));
}
