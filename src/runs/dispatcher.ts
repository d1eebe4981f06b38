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
  /** How many runs may go on at once in this process. */
  perInstance: number;
  leaseMs: number;
  mostQueued: number;
}

/** Which runs this process has, and which of them go on. */
export interface Dispatcher {
  /**
   * Stores a run and begins it, at once or when its turn comes.
   * @throws AppError `rate_limited` (429) when the user has too many queued; `draining`, `database_unavailable` (503).
   */
  accept(principal: Principal, server: OpenServer, asked: StartRun, requestId: string): Promise<ActiveRun>;
  /** A run that this process has. */
  find(run: RunRef): ActiveRun | undefined;
  /** Somebody asked for the end of a run, which may be this process's. */
  cancel(runId: string): void;
  /** Some run has ended: looks whether one that is queued here may begin now. */
  claimQueued(): void;
  /** Another process has left its queued runs to others. */
  claimReleased(): void;
  /** A sign of life for what this process has; takes over what others have left. To be called again and again. */
  heartbeat(): Promise<void>;
  /** Begins nothing more, and leaves to others what is queued here. */
  releaseQueued(): Promise<void>;
  /** Resolves when the history of all that went on here is stored, and nothing is under way. */
  settled(): Promise<void>;
}

/** In seconds. */
const RETRY_AFTER_S = 5;

/** Builds it. Who may begin is decided in the database, for all processes; room in this one here. */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, log, leaseMs, perInstance } = deps;
  const activeRuns = createActiveRuns(deps);
  const orphanRecovery = createOrphanRecovery(deps);
  /** Runs that go on here, and places that are asked for. */
  let usedSlots = 0;
  let claiming: Promise<void> | undefined;
  let isClaimDue = false;
  let isReleasing = false;
  /** Since when the database has heard every sign of life: until then, silence of others may be its own. */
  let heartbeatsSinceMs: number | undefined;

  /** Those who wait here are asked for their turn first. */
  function takeSlot(): boolean {
    if (claiming !== undefined || usedSlots >= perInstance) return false;
    usedSlots += 1;
    return true;
  }

  function releaseSlot(): void {
    usedSlots -= 1;
    poke();
  }

  function poke(): void {
    if (activeRuns.hasQueued) void claim(false);
  }

  async function claim(orphans: boolean): Promise<void> {
    isClaimDue = true;
    claiming ??= claimAll(orphans).finally(() => {
      claiming = undefined;
    });
    await claiming;
  }

  async function claimAll(orphans: boolean): Promise<void> {
    while (isClaimDue && !isReleasing) {
      isClaimDue = false;
      const most = perInstance - usedSlots;
      if (most <= 0) return;
      usedSlots += most;
      // The next beat tries again.
      const claimed = await store.claim(most, orphans).catch((error: unknown) => {
        log.warn({ err: error }, 'the queue of runs could not be read');
        return [];
      });
      usedSlots -= most - claimed.length;
      for (const run of claimed) activeRuns.startQueued(run, releaseSlot);
      await publishPositions();
    }
  }

  async function publishPositions(): Promise<void> {
    if (activeRuns.hasQueued)
      activeRuns.publishPositions(await store.listPositions().catch(() => new Map<string, number>()));
  }

  async function takeOverOrphans(): Promise<void> {
    for (const run of await store.takeOrphans(perInstance)) orphanRecovery.recover(run);
    await claim(true);
  }

  return {
    async accept(principal, server, asked, requestId) {
      if (isReleasing) throw drainingError();
      const name: RunRef = { id: `run_${randomId(20)}`, owner: userOwner(principal.user.id) };
      const run = createActiveRun(name, principal);
      const hasSlot = takeSlot();
      const forget = activeRuns.register(run);
      const sealed = deps.seals.encryptRun(name, asked, principal);
      const answer = await store
        .submit(toNewRun(name, server, asked, sealed), hasSlot, requestId)
        .catch((error: unknown) => {
          forget();
          if (hasSlot) releaseSlot();
          throw error;
        });
      if (answer.outcome === 'running') {
        activeRuns.start(run, { server, job: toJob(run.id, asked), limits: toLimits(asked) }, releaseSlot);
        return run;
      }
      if (hasSlot) releaseSlot();
      if (answer.outcome === 'full') {
        forget();
        throw rateLimited(`At most ${deps.mostQueued} of your runs may be queued.`, RETRY_AFTER_S);
      }
      activeRuns.enqueue(run, answer.place);
      poke();
      return run;
    },
    find: (run) => activeRuns.find(run),
    cancel: (id) => {
      activeRuns.applyDatabaseState(id, true);
    },
    claimQueued: poke,
    claimReleased: () => void claim(false),
    async heartbeat() {
      const known = [...activeRuns.listLeased(), ...orphanRecovery.listPending()];
      const renewed = await store.renew(known.map(({ id }) => id)).catch((error: unknown) => {
        heartbeatsSinceMs = undefined;
        throw error;
      });
      for (const run of known) activeRuns.applyDatabaseState(run.id, renewed.get(run.id));
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
        log.warn({ err: error }, 'queued runs could not be left to others; they are once their leases end');
      });
    },
    async settled() {
      await Promise.all([activeRuns.settled(), orphanRecovery.settled()]);
    },
  };
}

function toNewRun({ id, owner }: RunRef, server: OpenServer, asked: StartRun, sealed: string): NewRun {
  const program = toRunProgram(asked);
  return {
    ...{ id, owner, sealed },
    serverId: server.id,
    serverName: server.name,
    serverType: server.serverType,
    serverVersions: listServerVersions(server.target),
    language: 'language' in program ? program.language : null,
    codeSha256: hashProgram(program),
  };
}
