import { drainingError } from '../http/draining-error.ts';
import type { Principal } from '../http/principal.ts';
import { rateLimited } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import { userOwner } from '../lib/owner.ts';
import type { OpenServer, ServerOpener } from '../servers/service.ts';
import { createActiveRuns, type ActiveRunsDeps } from './active-runs.ts';
import { createOrphanRecovery, type OrphanRecoveryDeps } from './orphan-recovery.ts';
import { createActiveRun, type ActiveRun } from './active-run.ts';
import type { NewRun } from './queue-store.ts';
import type { RunsStore } from './runs-store.ts';
import { listServerVersions } from './server-versions.ts';
import { toJob, toLimits, type StartRun } from './schema.ts';
import { hashProgram, toRunProgram, type RunRef } from './run-encryption.ts';

export interface DispatcherDeps extends ActiveRunsDeps, OrphanRecoveryDeps {
  store: RunsStore;
  servers: ServerOpener;
  /** Runs under way at once in this process. */
  maxActive: number;
  leaseMs: number;
  maxQueuedPerUser: number;
}

/** Starts runs of this process or queues them. */
export interface Dispatcher {
  /**
   * Stores a run and starts it, at once or when the queue allows it.
   * @throws AppError `rate_limited` (429) when the user has too many queued runs; `draining`, `database_unavailable`
   *   (503).
   */
  accept(principal: Principal, server: OpenServer, request: StartRun, requestId: string): Promise<ActiveRun>;
  /** A run held by this process. */
  find(run: RunRef): ActiveRun | undefined;
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
  /** Resolves when no run is under way here and every history is stored. */
  settled(): Promise<void>;
}

const RETRY_AFTER_S = 5;

/**
 * Creates the dispatcher. `claim_runs` and `submit_run` (`queue-store.ts`, `migrations/0005_runs.sql`) decide for all
 * processes which run starts; the dispatcher counts the slots of this process.
 */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, log, leaseMs, maxActive } = deps;
  const activeRuns = createActiveRuns(deps);
  const orphanRecovery = createOrphanRecovery(deps);
  /** Runs under way here, and slots reserved for a pending claim or submission. */
  let usedSlots = 0;
  let claiming: Promise<void> | undefined;
  let isClaimDue = false;
  let isReleasing = false;
  /** Start of uninterrupted heartbeats. Orphans are taken over only after one full lease of them. */
  let heartbeatsSinceMs: number | undefined;

  /** @returns false when no slot is free. Also during a claim, so that queued runs start before new ones. */
  function takeSlot(): boolean {
    if (claiming !== undefined || usedSlots >= maxActive) return false;
    usedSlots += 1;
    return true;
  }

  function releaseSlot(): void {
    usedSlots -= 1;
    claimQueued();
  }

  function claimQueued(): void {
    if (activeRuns.hasQueued) void claim(false);
  }

  async function claim(includeOrphans: boolean): Promise<void> {
    isClaimDue = true;
    claiming ??= claimAll(includeOrphans).finally(() => {
      claiming = undefined;
    });
    await claiming;
  }

  async function claimAll(includeOrphans: boolean): Promise<void> {
    while (isClaimDue && !isReleasing) {
      isClaimDue = false;
      const freeSlots = maxActive - usedSlots;
      if (freeSlots <= 0) return;
      usedSlots += freeSlots;
      // The next heartbeat tries again.
      const claimed = await store.claim(freeSlots, includeOrphans).catch((error: unknown) => {
        log.warn({ err: error }, 'the run queue could not be read; the next heartbeat retries');
        return [];
      });
      usedSlots -= freeSlots - claimed.length;
      for (const run of claimed) activeRuns.startQueued(run, releaseSlot);
      await publishPositions();
    }
  }

  async function publishPositions(): Promise<void> {
    if (activeRuns.hasQueued)
      activeRuns.publishPositions(await store.listPositions().catch(() => new Map<string, number>()));
  }

  async function takeOverOrphans(): Promise<void> {
    for (const run of await store.takeOrphans(maxActive)) orphanRecovery.recover(run);
    await claim(true);
  }

  return {
    async accept(principal, server, request, requestId) {
      if (isReleasing) throw drainingError();
      const ref: RunRef = { id: `run_${randomId(20)}`, owner: userOwner(principal.user.id) };
      const run = createActiveRun(ref, principal);
      const hasSlot = takeSlot();
      const unregister = activeRuns.register(run);
      const ciphertext = deps.encryption.encryptRun(ref, request, principal);
      const submission = await store
        .submit(toNewRun(ref, server, request, ciphertext), hasSlot, requestId)
        .catch((error: unknown) => {
          unregister();
          if (hasSlot) releaseSlot();
          throw error;
        });
      if (submission.outcome === 'running') {
        activeRuns.start(
          run,
          { server, job: toJob(run.id, request), limits: toLimits(request) },
          releaseSlot,
        );
        return run;
      }
      if (hasSlot) releaseSlot();
      if (submission.outcome === 'full') {
        unregister();
        throw rateLimited(`At most ${deps.maxQueuedPerUser} of your runs may be queued.`, RETRY_AFTER_S);
      }
      activeRuns.enqueue(run, submission.position);
      claimQueued();
      return run;
    },
    find: (run) => activeRuns.find(run),
    cancel: (id) => {
      activeRuns.applyDatabaseState(id, true);
    },
    claimQueued,
    claimReleased: () => void claim(false),
    async heartbeat() {
      const held = [...activeRuns.listLeased(), ...orphanRecovery.listPending()];
      const renewed = await store.renew(held.map(({ id }) => id)).catch((error: unknown) => {
        heartbeatsSinceMs = undefined;
        throw error;
      });
      for (const run of held) activeRuns.applyDatabaseState(run.id, renewed.get(run.id));
      heartbeatsSinceMs ??= performance.now();
      if (isReleasing) return;
      if (performance.now() - heartbeatsSinceMs > leaseMs) await takeOverOrphans();
      else await claim(false);
    },
    async releaseQueued() {
      isReleasing = true;
      await claiming;
      await activeRuns.releaseQueued();
      await store.release().catch((error: unknown) => {
        log.warn(
          { err: error },
          'queued runs could not be released; other processes take them when their leases end',
        );
      });
    },
    async settled() {
      await Promise.all([activeRuns.settled(), orphanRecovery.settled()]);
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
