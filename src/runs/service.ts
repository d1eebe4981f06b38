import { setTimeout as rest } from 'node:timers/promises';
import type { Principal } from '../http/principal.ts';
import type { Identity } from '../identity/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import { randomId } from '../lib/ids.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import { createPoller } from '../lib/async/poller.ts';
import { createNotificationListener } from '../lib/postgres/notification-listener.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { ServerOpener } from '../servers/service.ts';
import { createDispatcher } from './dispatcher.ts';
import type { NumberedEvent } from './events.ts';
import { createEventSubscriptions } from './event-subscription.ts';
import { createPrepareRun, assertLimitsSupported } from './preparation.ts';
import { createRunHistory, type RunHistory } from './history.ts';
import { RUNS_CHANNEL } from './queue-store.ts';
import { createRunsStore } from './runs-store.ts';
import { toLimits, type StartRun } from './schema.ts';
import { createRunEncryption, type RunRef } from './run-encryption.ts';

export { listRunOwners } from './re-encryption-store.ts';
export { deleteRunsOfOwner } from './runs-store.ts';

export interface RunServiceDeps {
  database: Database;
  /** Straight to Postgres, where processes tell each other of runs. */
  databaseUrl: string;
  keyring: Keyring;
  identity: Pick<Identity, 'userCache' | 'isSignInValid' | 'activeWork'>;
  servers: ServerOpener;
  settings: { perUser: number; perServer: number; perInstance: number; historyDays: number };
  log: Log;
  /** How long a run counts without a sign of life of the process that has it. */
  leaseMs?: number;
}

/** Running code on people's servers: from any process, seen from any, never under way for ever. */
export interface RunService extends RunHistory {
  /**
   * Begins a run, or queues it. It goes on until it ends, is cancelled, or the sign-in that started it ends.
   * @param ref the server's id, or `default`.
   * @throws AppError what opening the server throws; `limit_unsupported` (422), `rate_limited` (429).
   */
  submit(principal: Principal, ref: string, asked: StartRun, requestId: string): Promise<RunRef>;
  /** Whether this process has the run under way. */
  isActive(run: RunRef): boolean;
  /** A run's events after a number, up to its exit or until `signal` ends. */
  subscribe(run: RunRef, afterSeq: number, signal: AbortSignal): AsyncGenerator<NumberedEvent, void>;
  /** Deletes all runs of a person who is no more. What is under way ends. */
  removeUser(userId: string): Promise<void>;
  /** Begins to look after the queue. Resolves after the first look, good or bad. */
  start(): Promise<void>;
  /** Begins nothing more, and leaves to other processes what is queued; what goes on is the caller's to end. */
  drain(): Promise<void>;
  /** Waits a while for what is being stored, and ends the looking after. */
  stop(): Promise<void>;
}

const MAX_QUEUED_PER_USER = 64;
/** Every start costs rows, and can be a look at an address. */
const MAX_STARTS_PER_MINUTE = 120;
const LEASE_MS = 20_000;
const HEARTBEATS_PER_LEASE = 4;
const PRUNE_INTERVAL_MS = 10 * 60_000;
const SETTLE_TIMEOUT_MS = 5_000;
/** Notices make things quick here, and nothing depends on them. */
const LISTEN_HEARTBEAT_MS = 1_000;

/** Builds it. Nothing is asked of the database before `start` or a request. */
export function createRunService(deps: RunServiceDeps): RunService {
  const { database, identity, servers, settings, log, leaseMs = LEASE_MS } = deps;
  const { historyDays, perInstance, ...limits } = settings;
  const closing = new AbortController();
  const starts = createRateLimit({
    points: MAX_STARTS_PER_MINUTE,
    rejectionDetail: 'You have started many runs in a minute. Wait a little.',
  });
  const seals = createRunEncryption(deps.keyring);
  const store = createRunsStore(database, {
    instance: randomId(20),
    leaseMs,
    limits,
    mostQueued: MAX_QUEUED_PER_USER,
  });
  const dispatcher = createDispatcher({
    ...{ store, seals, servers, log, perInstance },
    prepare: createPrepareRun({ store, seals, identity, servers }),
    liveWork: identity.activeWork,
    closing: closing.signal,
    leaseMs,
    mostQueued: MAX_QUEUED_PER_USER,
  });
  const subscriptions = createEventSubscriptions({ store, seals, dispatcher });
  const notifications = createNotificationListener({
    url: deps.databaseUrl,
    channel: RUNS_CHANNEL,
    log,
    heartbeatIntervalMs: LISTEN_HEARTBEAT_MS,
  });
  notifications.onNotification((notice) => {
    const [what, id = ''] = notice.split(' ');
    if (what === 'cancel') dispatcher.cancel(id);
    else subscriptions.wake(id);
    if (what === 'ended') dispatcher.claimQueued();
    if (what === 'released') dispatcher.claimReleased();
  });
  const pollers = [
    createPoller(
      'looking after the queue of runs',
      leaseMs / HEARTBEATS_PER_LEASE,
      () => dispatcher.heartbeat(),
      log,
    ),
    createPoller('pruning the history of runs', PRUNE_INTERVAL_MS, () => store.prune(historyDays), log),
  ];

  return {
    async submit(principal, ref, asked, requestId) {
      await starts.consume(principal.user.id);
      const server = await servers.openForUse(principal.user.id, ref);
      assertLimitsSupported(server, toLimits(asked));
      const { id, owner } = await dispatcher.accept(principal, server, asked, requestId);
      return { id, owner };
    },
    ...createRunHistory({ database, store, seals, dispatcher }),
    isActive: (run) => dispatcher.find(run) !== undefined,
    subscribe: (run, afterSeq, signal) => subscriptions.subscribe(run, afterSeq, signal),
    removeUser: (userId) => store.removeOwner(userOwner(userId)),
    async start() {
      await Promise.all([notifications.start(), ...pollers.map((loop) => loop.start())]);
    },
    drain: () => dispatcher.releaseQueued(),
    async stop() {
      await Promise.race([dispatcher.settled(), rest(SETTLE_TIMEOUT_MS, undefined, { ref: false })]);
      closing.abort();
      await Promise.all([notifications.stop(), ...pollers.map((loop) => loop.stop())]);
    },
  };
}
