import { setTimeout as delay } from 'node:timers/promises';
import type { Principal } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import { createPoller } from '../lib/async/poller.ts';
import type { NotificationListener } from '../lib/postgres/notification-listener.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createDispatcher } from './dispatcher.ts';
import type { NumberedEvent } from './events.ts';
import { createEventSubscriptions } from './event-subscription.ts';
import { RUNS_CHANNEL } from './queue-store.ts';
import { createRunsStore } from './runs-store.ts';
import { toLimits, type StartRun } from './schema.ts';
import { createRunEncryption, type RunRef } from './run-encryption.ts';
import { createRunData } from './run-data.ts';
import { assertMayRun } from './preparation.ts';
import { createUserRuns, type UserRuns } from './user-runs.ts';

export { createRunData } from './run-data.ts';

export interface RunServiceDeps {
  database: Database;
  /** A lost one only raises latency here: polling is the fallback. */
  notifications: Pick<NotificationListener, 'onNotification'>;
  keyring: Keyring;
  identity: Pick<Identity, 'userCache' | 'isSignInValid' | 'activeWork'>;
  servers: ServerOpener;
  settings: { perUser: number; perServer: number; perInstance: number; historyDays: number };
  log: Log;
  /** A run is an orphan when its process has not renewed the lease for this long. */
  leaseMs?: number;
}

/** Runs code on users' servers. Runs can be started and watched in any process, and every run ends. */
export interface RunService extends UserRuns {
  /**
   * Starts a run, or queues it. The run ends when its program exits, when it is cancelled, or when the sign-in that
   * started it ends.
   * @param ref the server's id, or `default`.
   * @param id of the run, see {@link createRunId}.
   * @throws AppError as {@link ServerOpener.openForRun}; `scope_required` (403) for a token, where the server's owner has
   *   not allowed runs by tokens; `rate_limited` (429).
   */
  submit(
    principal: Principal,
    ref: string,
    request: StartRun,
    requestId: string,
    id?: string,
  ): Promise<RunRef>;
  /** Whether this process holds the run. */
  isActive(run: RunRef): boolean;
  /** A run's events after a number, up to its exit or until `signal` aborts. */
  subscribe(run: RunRef, afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** The kept events of a run, from its exit on: those of its history. */
  subscribeKept(run: RunRef, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** Deletes all runs of a deleted user. Runs that are running end. */
  removeUser(userId: string): Promise<void>;
  /** Starts heartbeat and pruning. Resolves after the first round, also when it failed. */
  start(): Promise<void>;
  /** Starts no further run and releases queued runs to other processes. The caller ends the running ones. */
  drain(): Promise<void>;
  /** Waits up to {@link SETTLE_TIMEOUT_MS} for pending writes, then stops heartbeat and pruning. */
  stop(): Promise<void>;
}

const MAX_QUEUED_PER_USER = 64;
/** Per user. Every start writes rows, and can probe an address. */
const MAX_STARTS_PER_MINUTE = 120;
const LEASE_MS = 20_000;
const HEARTBEATS_PER_LEASE = 4;
const PRUNE_INTERVAL_MS = 10 * 60_000;
const SETTLE_TIMEOUT_MS = 5_000;

export function createRunId(): string {
  return `run_${randomId(20)}`;
}

/** Sends no query before `start` or a request. */
export function createRunService(deps: RunServiceDeps): RunService {
  const { database, identity, servers, settings, log, leaseMs = LEASE_MS } = deps;
  const { historyDays, perInstance, ...limits } = settings;
  const closing = new AbortController();
  const startLimit = createRateLimit({
    maxUses: MAX_STARTS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_STARTS_PER_MINUTE} starts of runs a minute. Wait, then start the run again.`,
  });
  const encryption = createRunEncryption(deps.keyring);
  const store = createRunsStore(database, {
    instance: randomId(20),
    leaseMs,
    limits,
    maxQueuedPerUser: MAX_QUEUED_PER_USER,
  });
  const dispatcher = createDispatcher({
    ...{ store, encryption, identity, servers, log, maxActive: perInstance },
    activeWork: identity.activeWork,
    closing: closing.signal,
    leaseMs,
    maxQueuedPerUser: MAX_QUEUED_PER_USER,
  });
  const subscriptions = createEventSubscriptions({ store, encryption, dispatcher });
  deps.notifications.onNotification(RUNS_CHANNEL, (payload) => {
    const [event, id = ''] = payload.split(' ');
    if (event === 'cancel') dispatcher.cancel(id);
    else subscriptions.wake(id);
    if (event === 'ended') dispatcher.claimQueued();
    if (event === 'released') dispatcher.claimReleased();
  });
  const pollers = [
    createPoller(
      'the heartbeat of the run queue',
      leaseMs / HEARTBEATS_PER_LEASE,
      () => dispatcher.heartbeat(),
      log,
    ),
    createPoller('the pruning of the run history', PRUNE_INTERVAL_MS, () => store.prune(historyDays), log),
  ];

  return {
    async submit(principal, ref, request, requestId, id = createRunId()) {
      await startLimit.consume(principal.user.id);
      const server = await servers.openForRun(principal.user.id, ref, toLimits(request));
      assertMayRun(principal, server);
      return dispatcher.accept(
        { id, owner: userOwner(principal.user.id) },
        principal,
        server,
        request,
        requestId,
      );
    },
    ...createUserRuns({ database, store, encryption, dispatcher, servers }),
    isActive: (run) => dispatcher.find(run) !== undefined,
    subscribe: (run, afterSeq, signal) => subscriptions.subscribe(run, afterSeq, signal),
    subscribeKept: (run, signal) => subscriptions.subscribeKept(run, signal),
    removeUser: (userId) => createRunData(deps).remove(userOwner(userId)),
    async start() {
      await Promise.all(pollers.map((poller) => poller.start()));
    },
    drain: () => dispatcher.releaseQueued(),
    async stop() {
      await Promise.race([dispatcher.settled(), delay(SETTLE_TIMEOUT_MS, undefined, { ref: false })]);
      closing.abort();
      await Promise.all(pollers.map((poller) => poller.stop()));
    },
  };
}
