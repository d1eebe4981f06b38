import { setTimeout as rest } from 'node:timers/promises';
import type { Principal } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import type { Database } from '../lib/database.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/keyring.ts';
import type { Log } from '../lib/log.ts';
import { createLoop } from '../lib/loop.ts';
import { createNotifications } from '../lib/notifications.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { ServerUse } from '../servers/service.ts';
import { createDispatcher } from './dispatcher.ts';
import type { NumberedNews } from './events.ts';
import { createFollowing } from './following.ts';
import { createPreparation, refuseUnenforceable } from './preparation.ts';
import { createHistory, type History } from './history.ts';
import { RUNS_CHANNEL } from './queue-store.ts';
import { createRunsStore } from './runs-store.ts';
import { limitsOf, type StartRun } from './schema.ts';
import { createRunSeals, type RunName } from './sealed.ts';

export { listRunOwners } from './resealing-store.ts';
export { removeRunsOf } from './runs-store.ts';

export interface RunServiceDeps {
  database: Database;
  /** Straight to Postgres, where processes tell each other of runs. */
  databaseUrl: string;
  keyring: Keyring;
  identity: Pick<Identity, 'directory' | 'isStanding' | 'liveWork'>;
  servers: ServerUse;
  settings: { perUser: number; perServer: number; perInstance: number; historyDays: number };
  log: Log;
  /** How long a run counts without a sign of life of the process that has it. */
  leaseMs?: number;
}

/** Running code on people's servers: from any process, seen from any, never under way for ever. */
export interface RunService extends History {
  /**
   * Begins a run, or queues it. It goes on until it ends, is cancelled, or the sign-in that started it ends.
   * @param ref the server's id, or `default`.
   * @throws AppError what opening the server throws; `limit_unsupported` (422), `rate_limited` (429).
   */
  submit(principal: Principal, ref: string, asked: StartRun, requestId: string): Promise<RunName>;
  /** Whether this process has the run under way. */
  isHere(run: RunName): boolean;
  /** A run's events after a number, up to its exit or until `signal` ends. */
  follow(run: RunName, afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedNews, void>;
  /** Deletes all runs of a person who is no more. What is under way ends. */
  removeUser(userId: string): Promise<void>;
  /** Begins to look after the queue. Resolves after the first look, good or bad. */
  start(): Promise<void>;
  /** Begins nothing more, and leaves to other processes what is queued; what goes on is the caller's to end. */
  drain(): Promise<void>;
  /** Waits a while for what is being stored, and ends the looking after. */
  stop(): Promise<void>;
}

const MOST_QUEUED = 64;
/** Every start costs rows, and can be a look at an address. */
const STARTS_A_MINUTE = 120;
const LEASE_MS = 20_000;
const BEATS_PER_LEASE = 4;
const PRUNE_EVERY_MS = 10 * 60_000;
const SETTLE_WITHIN_MS = 5_000;
/** Notices make things quick here, and nothing depends on them. */
const HEARTBEAT_MS = 1_000;

/** Builds it. Nothing is asked of the database before `start` or a request. */
export function createRunService(deps: RunServiceDeps): RunService {
  const { database, identity, servers, settings, log, leaseMs = LEASE_MS } = deps;
  const { historyDays, perInstance, ...limits } = settings;
  const closing = new AbortController();
  const starts = createRateLimit({
    points: STARTS_A_MINUTE,
    refusal: 'You have started many runs in a minute. Wait a little.',
  });
  const seals = createRunSeals(deps.keyring);
  const store = createRunsStore(database, {
    instance: randomId(20),
    leaseMs,
    limits,
    mostQueued: MOST_QUEUED,
  });
  const dispatcher = createDispatcher({
    ...{ store, seals, servers, log, perInstance },
    prepare: createPreparation({ store, seals, identity, servers }),
    liveWork: identity.liveWork,
    closing: closing.signal,
    leaseMs,
    mostQueued: MOST_QUEUED,
  });
  const following = createFollowing({ store, seals, dispatcher });
  const notices = createNotifications({
    url: deps.databaseUrl,
    channel: RUNS_CHANNEL,
    log,
    heartbeatMs: HEARTBEAT_MS,
  });
  notices.onNotice((notice) => {
    const [what, id = ''] = notice.split(' ');
    if (what === 'cancel') dispatcher.cancel(id);
    else following.wake(id);
    if (what === 'ended') dispatcher.poke();
    if (what === 'released') dispatcher.look();
  });
  const loops = [
    createLoop('looking after the queue of runs', leaseMs / BEATS_PER_LEASE, () => dispatcher.beat(), log),
    createLoop('pruning the history of runs', PRUNE_EVERY_MS, () => store.prune(historyDays), log),
  ];

  return {
    async submit(principal, ref, asked, requestId) {
      await starts.take(principal.user.id);
      const server = await servers.openForUse(principal.user.id, ref);
      refuseUnenforceable(server, limitsOf(asked));
      const { id, owner } = await dispatcher.accept(principal, server, asked, requestId);
      return { id, owner };
    },
    ...createHistory({ database, store, seals, dispatcher }),
    isHere: (run) => dispatcher.find(run) !== undefined,
    follow: (run, afterSeq, signal) => following.follow(run, afterSeq, signal),
    removeUser: (userId) => store.removeOwner(userOwner(userId)),
    async start() {
      await Promise.all([notices.start(), ...loops.map((loop) => loop.start())]);
    },
    drain: () => dispatcher.release(),
    async stop() {
      await Promise.race([dispatcher.settled(), rest(SETTLE_WITHIN_MS, undefined, { ref: false })]);
      closing.abort();
      await Promise.all([notices.stop(), ...loops.map((loop) => loop.stop())]);
    },
  };
}
