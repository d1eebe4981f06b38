import { randomId } from '../../lib/ids.ts';
import type { Log } from '../../lib/log.ts';
import type { Owner } from '../../lib/owner.ts';
import type { Limits, Target } from '../runner.ts';
import type { DockerConfig } from './config.ts';
import { areDefault } from './containers.ts';
import { createEngine, type Engine, type EngineDeps } from './engine.ts';
import { detach, openSession, removeAndLook, sweep, type Session } from './session.ts';

/** Engines in use, each with at most one container that waits for the next job of its server. */
export interface Pool {
  /**
   * The server's engine, kept for its next job too. A job may still hold a server as it was before it was changed or
   * deleted: it gets an engine of its own, of which nothing is kept.
   */
  engineOf(target: Target<DockerConfig>): Engine;
  /** The waiting container, if its limits will do: used once. */
  take(target: Target<DockerConfig>, limits: Limits): Session | undefined;
  /** Makes the next one, in the background. */
  refill(target: Target<DockerConfig>): void;
  forget(serverId: string): Promise<void>;
  close(): Promise<void>;
}

export interface PoolOptions extends EngineDeps {
  log: Log;
  /** Of this process. */
  instance: string;
  /** How long a server may go without a job before its container and connections are let go. */
  idleMs: number;
}

/** The versions of a server and of those that it goes through, in this order: they only rise. */
type Age = readonly number[];

/** How long an older state of a server is known as such: longer than a job takes to come here with one. */
const REMEMBER_MS = 60 * 60_000;

/** What is kept for one version of one server. */
interface Slot {
  owner: Owner;
  age: Age;
  engine: Engine;
  /** Settles when the container waits; undefined where there is none. */
  filling: Promise<Session | undefined> | undefined;
  ready: Session | undefined;
  isClosed: boolean;
  /** Containers that could not be removed so far. */
  left: Set<string>;
  idle: NodeJS.Timeout;
  stop: AbortController;
}

/** Nothing is shared between servers, and so nothing between owners. */
export function createPool(options: PoolOptions): Pool {
  const { log, instance, idleMs } = options;
  const slots = new Map<string, Slot>();
  /** What was let go of since its server was changed or deleted. */
  const forgotten = new Map<string, Age>();
  const closing = new Set<Promise<void>>();

  /** @returns undefined for a server as it is no more. */
  function slotOf(target: Target<DockerConfig>): Slot | undefined {
    const { serverId, owner } = target;
    const age = ageOf(target);
    const known = slots.get(serverId);
    if (known?.owner === owner) {
      const order = compare(age, known.age);
      if (order === 0) known.idle.refresh();
      if (order <= 0) return order === 0 ? known : undefined;
    }
    const last = forgotten.get(serverId);
    if (last !== undefined && compare(age, last) <= 0) return undefined;
    if (known !== undefined) void drop(serverId, known);
    const slot: Slot = {
      owner,
      age,
      engine: createEngine(target, options),
      filling: undefined,
      ready: undefined,
      isClosed: false,
      left: new Set(),
      idle: setTimeout(() => void drop(serverId, slot), idleMs).unref(),
      stop: new AbortController(),
    };
    slots.set(serverId, slot);
    return slot;
  }

  function remember(serverId: string, age: Age): void {
    forgotten.set(serverId, age);
    setTimeout(() => {
      if (forgotten.get(serverId) === age) forgotten.delete(serverId);
    }, REMEMBER_MS).unref();
  }

  function drop(serverId: string, slot: Slot): Promise<void> {
    if (slots.get(serverId) === slot) slots.delete(serverId);
    const done = closeSlot(slot).finally(() => closing.delete(done));
    closing.add(done);
    return done;
  }

  return {
    engineOf: (target) => slotOf(target)?.engine ?? createPassing(target, options),
    take(target, limits) {
      const slot = slotOf(target);
      const ready = slot?.ready;
      if (slot === undefined || ready === undefined || !areDefault(limits)) return undefined;
      slot.ready = undefined;
      return ready;
    },
    refill(target) {
      const slot = slotOf(target);
      if (slot === undefined || slot.ready !== undefined) return;
      slot.filling ??= fill(slot, target, instance)
        .catch((error: unknown) => {
          if (!slot.isClosed)
            log.debug({ err: error, server: target.serverId }, 'no container was made in advance');
          return undefined;
        })
        .finally(() => {
          slot.filling = undefined;
        });
    },
    async forget(serverId) {
      const slot = slots.get(serverId);
      if (slot === undefined) return;
      remember(serverId, slot.age);
      await drop(serverId, slot);
    },
    async close() {
      for (const [serverId, slot] of slots) void drop(serverId, slot);
      await Promise.all(closing);
    },
  };
}

/** An engine that keeps no idle connection, so that nobody needs to let go of it. */
function createPassing(target: Target<DockerConfig>, deps: EngineDeps): Engine {
  const engine = createEngine(target, deps);
  engine.retire();
  return engine;
}

function ageOf({ version, references }: Target): Age {
  // At most one each: a Docker server goes through one SSH server, and that one through at most one jump server.
  return [version, ...[...references.values()].flatMap(ageOf)];
}

/** Below 0 where `a` is older: the way can only be another one where a version before it has risen. */
function compare(a: Age, b: Age): number {
  const at = a.findIndex((version, index) => version !== b[index]);
  return at === -1 ? a.length - b.length : (a[at] ?? 0) - (b[at] ?? 0);
}

async function fill(
  slot: Slot,
  target: Target<DockerConfig>,
  instance: string,
): Promise<Session | undefined> {
  const { engine, stop } = slot;
  const name = `ops-center-warm-${randomId(20)}`;
  await Promise.all([sweep(engine, target), removeLeft(slot)]);
  const request = { target, limits: null, purpose: 'warm', name, instance } as const;
  const session = await openSession(engine, request, stop.signal).catch(async (error: unknown) => {
    await remove(slot, name);
    throw error;
  });
  if (slot.isClosed) return session;
  slot.ready = session;
  session.stream.once('close', () => {
    if (slot.ready !== session) return;
    // It ended before it was used, e.g. because the engine was restarted.
    slot.ready = undefined;
    detach(session);
    void remove(slot, session.id);
  });
  return session;
}

/** Lets go of what waits; the engine's connections go as they become idle. */
async function closeSlot(slot: Slot): Promise<void> {
  slot.isClosed = true;
  clearTimeout(slot.idle);
  slot.stop.abort(new Error('let go'));
  const sessions = [slot.ready, await slot.filling];
  slot.ready = undefined;
  for (const session of sessions) {
    if (session === undefined) continue;
    detach(session);
    await remove(slot, session.id);
  }
  await removeLeft(slot);
  slot.engine.retire();
}

/** Removes a container, or remembers to try again: the engine may be away for a while. */
async function remove(slot: Slot, idOrName: string): Promise<void> {
  if ((await removeAndLook(slot.engine, idOrName)) === 'verified') slot.left.delete(idOrName);
  else slot.left.add(idOrName);
}

async function removeLeft(slot: Slot): Promise<void> {
  await Promise.all([...slot.left].map((idOrName) => remove(slot, idOrName)));
}
