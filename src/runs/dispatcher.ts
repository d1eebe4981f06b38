import { drainingError } from '../http/draining-error.ts';
import type { Principal } from '../http/principal.ts';
import { rateLimited } from '../lib/errors.ts';
import { listServerVersions } from '../runners/runner.ts';
import type { OpenServer, ServerOpener } from '../servers/service.ts';
import type { EventBuffer } from './event-buffer.ts';
import { createActiveRun, type ActiveRun, type ActiveRunDeps } from './lifecycle.ts';
import { createOrphanRecovery, type OrphanRecoveryDeps } from './orphan-recovery.ts';
import { createRunPreparation, type RunPreparationDeps } from './preparation.ts';
import type { NewRun } from './queue-store.ts';
import type { RunsStore } from './runs-store.ts';
import { toJob, toLimits, toRunProgram, type StartRun } from './schema.ts';
import { hashProgram, type RunRef } from './run-encryption.ts';

export interface DispatcherDeps
  extends Omit<ActiveRunDeps, 'prepare' | 'onEnd'>, RunPreparationDeps, OrphanRecoveryDeps {
  store: RunsStore;
  servers: ServerOpener;
  /** Maximum number of concurrent runs in this process. */
  maxActive: number;
  leaseMs: number;
  maxQueuedPerUser: number;
}

/** A run that this process holds, for its readers: only the dispatcher starts it. */
export type HeldRun = Pick<ActiveRun, 'stop' | 'stopReason'> & {
  readonly events: Pick<EventBuffer, 'subscribe' | 'ended' | 'head' | 'tail'>;
};

/** Decides which runs of this process start, wait, and stop. */
export interface Dispatcher {
  /**
   * Stores a run and starts it, at once or when the queue allows it.
   * @throws AppError `rate_limited` (429) when the user has too many queued runs; `draining`, `database_unavailable`
   *   (503).
   */
  accept(
    ref: RunRef,
    principal: Principal,
    server: OpenServer,
    request: StartRun,
    requestId: string,
  ): Promise<RunRef>;
  find(run: RunRef): HeldRun | undefined;
  /** Stops a run if this process holds it. */
  cancel(runId: string): void;
  /** Starts queued runs of this process if the limits allow it. To be called when a run has ended. */
  claimQueued(): void;
  /** Starts queued runs that another process has released. */
  claimReleased(): void;
  /** Renews the leases of this process's runs and takes over orphans. To be called several times per lease. */
  heartbeat(): Promise<void>;
  /** Starts no further run and releases the queued runs of this process to other processes. */
  releaseQueued(): Promise<void>;
  /** Resolves when no run is running here and every history is stored. */
  settled(): Promise<void>;
}

const RETRY_AFTER_S = 5;

/**
 * Creates the dispatcher. `claim_runs` and `submit_run` (`queue-store.ts`, `migrations/0005_runs.sql`) decide for all
 * processes which run starts; the dispatcher counts the slots of this process.
 */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, log, leaseMs, maxActive } = deps;
  const preparation = createRunPreparation(deps);
  const orphanRecovery = createOrphanRecovery(deps);
  const runDeps: ActiveRunDeps = { ...deps, prepare: preparation.prepare, onEnd };
  /** The runs of this process by id, each until it has ended. */
  const runs = new Map<string, ActiveRun>();
  /** Ids of the runs that have a slot: those that are running, and those whose submission may start them. */
  const slots = new Set<string>();
  /** Claimed runs of other processes that are being read. */
  const takeovers = new Set<Promise<void>>();
  let claiming: Promise<void> | undefined;
  let isClaimDue = false;
  /** Whether the due claim includes orphans. */
  let areOrphansDue = false;
  let isReleasing = false;
  /** Start of uninterrupted heartbeats. Orphans are taken over only after one full lease of them. */
  let heartbeatsSinceMs: number | undefined;

  const listQueued = () => [...runs.values()].filter(({ state }) => state === 'queued');
  /** A run that is being submitted may have no row yet, so no lease. */
  const listLeased = () => [...runs.values()].filter(({ state }) => state !== 'submitting');

  function onEnd(run: ActiveRun): void {
    runs.delete(run.id);
    releaseSlot(run);
  }

  /** @returns false when no slot is free. Also during a claim, so that queued runs start before new ones. */
  function takeSlot({ id }: RunRef): boolean {
    if (claiming !== undefined || slots.size >= maxActive) return false;
    slots.add(id);
    return true;
  }

  function releaseSlot({ id }: RunRef): void {
    if (slots.delete(id)) claimQueued();
  }

  function claimQueued(): void {
    if (listQueued().length > 0) void claim(false);
  }

  async function claim(includeOrphans: boolean): Promise<void> {
    isClaimDue = true;
    areOrphansDue ||= includeOrphans;
    claiming ??= claimAll().finally(() => {
      claiming = undefined;
    });
    await claiming;
  }

  async function claimAll(): Promise<void> {
    while (isClaimDue && !isReleasing) {
      const includeOrphans = areOrphansDue;
      isClaimDue = areOrphansDue = false;
      // No other run takes a slot during a claim.
      const freeSlots = maxActive - slots.size;
      if (freeSlots <= 0) return;
      const claimed = await store.claim(freeSlots, includeOrphans).catch((error: unknown) => {
        log.warn({ err: error }, 'the run queue could not be read; the next heartbeat retries');
        return [];
      });
      for (const run of claimed) startClaimed(run);
      await updatePositions();
    }
  }

  function startClaimed(ref: RunRef): void {
    slots.add(ref.id);
    const run = runs.get(ref.id);
    if (run !== undefined) {
      run.claim();
      return;
    }
    const takeover = takeOverQueued(ref).finally(() => takeovers.delete(takeover));
    takeovers.add(takeover);
  }

  /** Takes over a queued run of a process that has ended, with the events that it has stored. */
  async function takeOverQueued(ref: RunRef): Promise<void> {
    const stored = await preparation.restore(ref).catch((error: unknown) => {
      log.warn(
        { err: error, run: ref.id },
        'a claimed run could not be read; it is lost when its lease ends',
      );
      return undefined;
    });
    if (stored === undefined) {
      releaseSlot(ref);
      return;
    }
    const run = createActiveRun(ref, stored.principal, runDeps, stored.events);
    runs.set(run.id, run);
    run.resume();
  }

  async function updatePositions(): Promise<void> {
    if (listQueued().length === 0) return;
    const positions = await store.listPositions().catch(() => new Map<string, number>());
    for (const run of listQueued()) run.updatePosition(positions.get(run.id));
  }

  async function takeOverOrphans(): Promise<void> {
    for (const run of await store.takeOrphans(maxActive)) orphanRecovery.recover(run);
    await claim(true);
  }

  return {
    async accept(ref, principal, server, request, requestId) {
      if (isReleasing) throw drainingError();
      const newRun = toNewRun(ref, server, request, deps.encryption.encryptRun(ref, request, principal));
      const run = createActiveRun(ref, principal, runDeps);
      runs.set(run.id, run);
      const hasSlot = takeSlot(run);
      const submission = await store.submit(newRun, hasSlot, requestId).catch((error: unknown) => {
        run.discard();
        throw error;
      });
      if (submission.outcome === 'full') {
        run.discard();
        throw rateLimited(`At most ${deps.maxQueuedPerUser} of your runs may be queued.`, RETRY_AFTER_S);
      }
      if (submission.outcome === 'running') {
        run.start({ server, job: toJob(run.id, request), limits: toLimits(request) });
        return ref;
      }
      // A run that is claimed already keeps its slot.
      if (run.state === 'submitting') slots.delete(run.id);
      run.enqueue(submission.position);
      claimQueued();
      return ref;
    },
    find({ id, owner }) {
      const run = runs.get(id);
      return run?.owner === owner ? run : undefined;
    },
    cancel: (id) => runs.get(id)?.stop('requested'),
    claimQueued,
    claimReleased: () => void claim(false),
    async heartbeat() {
      const held = [...listLeased(), ...orphanRecovery.listPending()];
      const renewed = await store.renew(held.map(({ id }) => id)).catch((error: unknown) => {
        heartbeatsSinceMs = undefined;
        throw error;
      });
      for (const { id } of held) {
        const isCancelRequested = renewed.get(id);
        if (isCancelRequested === undefined) runs.get(id)?.stop('taken');
        else if (isCancelRequested) runs.get(id)?.stop('requested');
      }
      heartbeatsSinceMs ??= performance.now();
      if (isReleasing) return;
      if (performance.now() - heartbeatsSinceMs > leaseMs) await takeOverOrphans();
      else await claim(false);
    },
    async releaseQueued() {
      isReleasing = true;
      await claiming;
      const queued = listQueued();
      for (const run of queued) run.stop('released');
      await Promise.all(queued.map(({ ended }) => ended));
      await store.release().catch((error: unknown) => {
        log.warn(
          { err: error },
          'queued runs could not be released; other processes take them when their leases end',
        );
      });
    },
    async settled() {
      await Promise.all(takeovers);
      await Promise.all([...listLeased().map(({ ended }) => ended), orphanRecovery.settled()]);
    },
  };
}

function toNewRun({ id, owner }: RunRef, server: OpenServer, request: StartRun, ciphertext: string): NewRun {
  const program = toRunProgram(request);
  return {
    ...{ id, owner, ciphertext },
    serverId: server.id,
    serverName: server.name,
    serverType: server.serverType,
    serverVersions: listServerVersions(server.target),
    language: 'language' in program ? program.language : null,
    codeSha256: hashProgram(program),
  };
}
