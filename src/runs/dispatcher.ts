import { draining } from '../http/draining.ts';
import type { Principal } from '../http/principal.ts';
import { rateLimited } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import { userOwner } from '../lib/owner.ts';
import type { OpenServer, ServerUse } from '../servers/service.ts';
import { createLives, type LivesDeps } from './lives.ts';
import { createLostRuns, type LostRunsDeps } from './lost-runs.ts';
import { createLiveRun, type LiveRun } from './live-run.ts';
import type { NewRun } from './queue-store.ts';
import type { RunsStore } from './runs-store.ts';
import { versionsOf } from './server-versions.ts';
import { jobOf, limitsOf, type StartRun } from './schema.ts';
import { hashOf, programOf, type RunName } from './sealed.ts';

export interface DispatcherDeps extends LivesDeps, LostRunsDeps {
  store: RunsStore;
  servers: ServerUse;
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
  accept(principal: Principal, server: OpenServer, asked: StartRun, requestId: string): Promise<LiveRun>;
  /** A run that this process has. */
  find(run: RunName): LiveRun | undefined;
  /** Somebody asked for the end of a run, which may be this process's. */
  cancel(runId: string): void;
  /** Some run has ended: looks whether one that is queued here may begin now. */
  poke(): void;
  /** Another process has left its queued runs to others. */
  look(): void;
  /** A sign of life for what this process has; takes over what others have left. To be called again and again. */
  beat(): Promise<void>;
  /** Begins nothing more, and leaves to others what is queued here. */
  release(): Promise<void>;
  /** Resolves when the history of all that went on here is stored, and nothing is under way. */
  settled(): Promise<void>;
}

/** In seconds. */
const RETRY_AFTER_S = 5;

/** Builds it. Who may begin is decided in the database, for all processes; room in this one here. */
export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, log, leaseMs, perInstance } = deps;
  const lives = createLives(deps);
  const lost = createLostRuns(deps);
  /** Runs that go on here, and places that are asked for. */
  let taken = 0;
  let claiming: Promise<void> | undefined;
  let isClaimDue = false;
  let isReleasing = false;
  /** Since when the database has heard every sign of life: until then, silence of others may be its own. */
  let steadySinceMs: number | undefined;

  /** Those who wait here are asked for their turn first. */
  function takeRoom(): boolean {
    if (claiming !== undefined || taken >= perInstance) return false;
    taken += 1;
    return true;
  }

  function leaveRoom(): void {
    taken -= 1;
    poke();
  }

  function poke(): void {
    if (lives.hasWaiting) void claim(false);
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
      const most = perInstance - taken;
      if (most <= 0) return;
      taken += most;
      // The next beat tries again.
      const claimed = await store.claim(most, orphans).catch((error: unknown) => {
        log.warn({ err: error }, 'the queue of runs could not be read');
        return [];
      });
      taken -= most - claimed.length;
      for (const run of claimed) lives.begin(run, leaveRoom);
      await tellPlaces();
    }
  }

  async function tellPlaces(): Promise<void> {
    if (lives.hasWaiting) lives.tellPlaces(await store.places().catch(() => new Map<string, number>()));
  }

  async function takeOver(): Promise<void> {
    for (const run of await store.takeLost(perInstance)) lost.clearAway(run);
    await claim(true);
  }

  return {
    async accept(principal, server, asked, requestId) {
      if (isReleasing) throw draining();
      const name: RunName = { id: `run_${randomId(20)}`, owner: userOwner(principal.user.id) };
      const run = createLiveRun(name, principal);
      const mayStart = takeRoom();
      const forget = lives.expect(run);
      const sealed = deps.seals.sealRun(name, asked, principal);
      const answer = await store
        .submit(rowOf(name, server, asked, sealed), mayStart, requestId)
        .catch((error: unknown) => {
          forget();
          if (mayStart) leaveRoom();
          throw error;
        });
      if (answer.outcome === 'running') {
        lives.start(run, { server, job: jobOf(run.id, asked), limits: limitsOf(asked) }, leaveRoom);
        return run;
      }
      if (mayStart) leaveRoom();
      if (answer.outcome === 'full') {
        forget();
        throw rateLimited(`At most ${deps.mostQueued} of your runs may be queued.`, RETRY_AFTER_S);
      }
      lives.wait(run, answer.place);
      poke();
      return run;
    },
    find: (run) => lives.find(run),
    cancel: (id) => {
      lives.hear(id, true);
    },
    poke,
    look: () => void claim(false),
    async beat() {
      const known = [...lives.stored(), ...lost.names()];
      const renewed = await store.renew(known.map(({ id }) => id)).catch((error: unknown) => {
        steadySinceMs = undefined;
        throw error;
      });
      for (const run of known) lives.hear(run.id, renewed.get(run.id));
      steadySinceMs ??= performance.now();
      if (isReleasing) return;
      if (performance.now() - steadySinceMs > leaseMs) await takeOver();
      else await claim(false);
    },
    async release() {
      isReleasing = true;
      await claiming;
      await lives.release();
      await store.release().catch((error: unknown) => {
        log.warn({ err: error }, 'queued runs could not be left to others; they are once their leases end');
      });
    },
    async settled() {
      await Promise.all([lives.settled(), lost.settled()]);
    },
  };
}

function rowOf({ id, owner }: RunName, server: OpenServer, asked: StartRun, sealed: string): NewRun {
  const program = programOf(asked);
  return {
    ...{ id, owner, sealed },
    serverId: server.id,
    serverName: server.name,
    serverType: server.serverType,
    serverVersions: versionsOf(server.target),
    language: 'language' in program ? program.language : null,
    codeSha256: hashOf(program),
  };
}
