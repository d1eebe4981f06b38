import { randomUUID } from 'node:crypto';
import { createActiveWork, type ActiveWork } from '../../src/identity/active-work.ts';
import type { Principal, User } from '../../src/http/principal.ts';
import { createDatabase } from '../../src/lib/postgres/database.ts';
import { createNotificationListener } from '../../src/lib/postgres/notification-listener.ts';
import { AppError } from '../../src/lib/errors.ts';
import { createKeyring } from '../../src/lib/crypto/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import type { TargetServer } from '../../src/runners/runner.ts';
import type { NumberedEvent, RunExit } from '../../src/runs/events.ts';
import { StartRun } from '../../src/runs/schema.ts';
import type { RunRef } from '../../src/runs/run-encryption.ts';
import { createRunService, type RunService, type RunServiceDeps } from '../../src/runs/service.ts';
import type { Tier } from '../../src/config/tiers.ts';
import { createProcessRunner } from './process-runner.ts';

export interface InstanceOptions {
  databaseUrl: string;
  encryptionKey: string;
  settings?: Partial<RunServiceDeps['settings']>;
  /** Shorter than the default, for tests that wait until a lease ends. */
  leaseMs?: number;
}

/** The run service of one process, on a real database. Every server is this machine's bash. */
export interface Instance {
  runs: RunService;
  /** Starts the notifications of other processes, then the service. */
  start(): Promise<void>;
  activeWork: ActiveWork;
  /** What the checks before the start of a queued run find. Tests change it. */
  conditions: {
    user: User | undefined;
    isSignInValid: boolean;
    refusal: AppError | undefined;
    version: number;
    /** Ids of the servers on which personal tokens may run code. */
    tokenServers: Set<string>;
  };
  /** The ids of the used servers, one per use. */
  usedServers: string[];
  close(): Promise<void>;
}

export function createInstance(options: InstanceOptions): Instance {
  const log = createLog('silent');
  const database = createDatabase({
    url: options.databaseUrl,
    max: 8,
    applicationName: 'runs-test',
    log,
  });
  const activeWork = createActiveWork();
  const runner = createProcessRunner();
  const conditions: Instance['conditions'] = {
    user: testUser('any user'),
    isSignInValid: true,
    refusal: undefined,
    version: 1,
    tokenServers: new Set(),
  };
  const usedServers: string[] = [];
  const notifications = createNotificationListener({ url: options.databaseUrl, log });
  const runs = createRunService({
    database,
    notifications,
    keyring: createKeyring([options.encryptionKey]),
    identity: {
      activeWork,
      isSignInValid: () => Promise.resolve(conditions.isSignInValid),
      userCache: {
        findUser: (id) =>
          Promise.resolve(conditions.user === undefined ? undefined : { ...conditions.user, id }),
        invalidate: () => undefined,
      },
    },
    servers: {
      openForRun(userId, ref) {
        if (conditions.refusal !== undefined) return Promise.reject(conditions.refusal);
        const { version, tokenServers } = conditions;
        const tokenRuns = tokenServers.has(ref);
        const target = targetOf(userId, ref, version);
        return Promise.resolve({
          ...{ id: ref, name: `server ${ref}`, serverType: 'ssh', version, tokenRuns, target, runner },
        } as const);
      },
      openForCleanup: (userId, id) =>
        Promise.resolve({ target: targetOf(userId, id, conditions.version), runner }),
      listTokenServerIds: () => Promise.resolve(conditions.tokenServers),
      recordUse(_userId, { id }) {
        usedServers.push(id);
        return Promise.resolve();
      },
    },
    settings: { perUser: 8, perServer: 8, perInstance: 32, historyDays: 30, ...options.settings },
    log,
    ...(options.leaseMs === undefined ? {} : { leaseMs: options.leaseMs }),
  });
  return {
    runs,
    async start() {
      await Promise.all([notifications.start(), runs.start()]);
    },
    activeWork,
    conditions,
    usedServers,
    async close() {
      await runs.drain();
      await activeWork.drain();
      await runs.stop();
      await notifications.stop();
      await database.close();
    },
  };
}

function targetOf(userId: string, serverId: string, version: number): TargetServer {
  const owner = `user:${userId}` as const;
  const settings = { config: {}, hostKey: null, workspacePath: null, jumpServers: new Map() };
  return { serverId, owner, version, ...settings };
}

export function testUser(id: string, tier: Tier = 'starter'): User {
  return { id, username: id, email: null, name: null, tier };
}

/** The principal of a new signed-in user with a random id. */
export function createPrincipal(): Principal {
  return {
    user: testUser(randomUUID()),
    credential: 'session',
    scopes: new Set(),
    token: null,
    sessionId: randomUUID(),
    keycloakSessionId: null,
    signedInAtMs: Date.now(),
  };
}

/** Starts a command. */
export function submit(
  { runs }: Instance,
  principal: Principal,
  command: string,
  server = 'one',
  more: object = {},
): Promise<RunRef> {
  return runs.submit(principal, server, StartRun.parse({ command, ...more }), 'req_test');
}

/** All events that a viewer of a run receives, up to the exit. */
export async function collectEvents({ runs }: Instance, run: RunRef, afterSeq = 0): Promise<NumberedEvent[]> {
  const seen: NumberedEvent[] = [];
  for await (const event of runs.subscribe(run, afterSeq, new AbortController().signal)) seen.push(event);
  return seen;
}

export async function waitForExit(instance: Instance, run: RunRef): Promise<RunExit> {
  for await (const { event } of instance.runs.subscribe(run, 0, new AbortController().signal))
    if (event.type === 'exit') return event;
  throw new Error('the events ended without an exit');
}

/** The whole output of a stream. */
export function outputText(seen: readonly NumberedEvent[], stream: 'stdout' | 'stderr' = 'stdout'): string {
  const outputs = seen.flatMap(({ event }) =>
    event.type === 'output' && event.stream === stream ? [event.data] : [],
  );
  return Buffer.concat(outputs).toString();
}

/** Waits for the first event of a run that matches. */
export async function firstEvent(
  { runs }: Instance,
  run: RunRef,
  matches: (event: NumberedEvent) => boolean,
): Promise<NumberedEvent> {
  const found = new AbortController();
  try {
    for await (const event of runs.subscribe(run, 0, found.signal)) if (matches(event)) return event;
  } finally {
    found.abort();
  }
  throw new Error('the events ended before one matched');
}
