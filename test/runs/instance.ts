import { randomUUID } from 'node:crypto';
import { createActiveWork, type ActiveWork } from '../../src/identity/active-work.ts';
import type { Principal, User } from '../../src/http/principal.ts';
import { createDatabase } from '../../src/lib/postgres/database.ts';
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
  /** Shorter than the product's, for tests that wait for their ends. */
  leaseMs?: number;
}

/** The runs of one process, on a real database, with this machine's bash as every server. */
export interface Instance {
  runs: RunService;
  liveWork: ActiveWork;
  /** What is asked when a queued run's turn comes; may be changed. */
  conditions: { user: User | undefined; isStanding: boolean; refusal: AppError | undefined; version: number };
  /** How often servers were noted as used. */
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
  const liveWork = createActiveWork();
  const runner = createProcessRunner();
  const world: Instance['conditions'] = {
    user: testUser('anybody'),
    isStanding: true,
    refusal: undefined,
    version: 1,
  };
  const used: string[] = [];
  const runs = createRunService({
    database,
    databaseUrl: options.databaseUrl,
    keyring: createKeyring([options.encryptionKey]),
    identity: {
      activeWork: liveWork,
      isSignInValid: () => Promise.resolve(world.isStanding),
      userCache: {
        findUser: (id) => Promise.resolve(world.user === undefined ? undefined : { ...world.user, id }),
        invalidate: () => undefined,
      },
    },
    servers: {
      openForUse(userId, ref) {
        if (world.refusal !== undefined) return Promise.reject(world.refusal);
        const { version } = world;
        const target = targetOf(userId, ref, version);
        return Promise.resolve({
          ...{ id: ref, name: `server ${ref}`, serverType: 'ssh', version, target, runner },
        } as const);
      },
      openForReaping: (userId, id) =>
        Promise.resolve({ target: targetOf(userId, id, world.version), runner }),
      noteUse(_userId, { id }) {
        used.push(id);
        return Promise.resolve();
      },
    },
    settings: { perUser: 8, perServer: 8, perInstance: 32, historyDays: 30, ...options.settings },
    log,
    ...(options.leaseMs === undefined ? {} : { leaseMs: options.leaseMs }),
  });
  return {
    runs,
    liveWork,
    conditions: world,
    usedServers: used,
    async close() {
      await runs.drain();
      await liveWork.drain();
      await runs.stop();
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

/** A signed-in person of the tests; nobody else has the same id. */
export function createPrincipal(): Principal {
  return {
    user: testUser(randomUUID()),
    credential: 'session',
    scopes: new Set(),
    sessionId: randomUUID(),
    keycloakSessionId: null,
    signedInAtMs: Date.now(),
  };
}

/** Starts a command for a person. */
export function submit(
  { runs }: Instance,
  principal: Principal,
  command: string,
  server = 'one',
  more: object = {},
): Promise<RunRef> {
  return runs.submit(principal, server, StartRun.parse({ command, ...more }), 'req_test');
}

/** Everything that a viewer is shown of a run, up to its exit. */
export async function collectEvents({ runs }: Instance, run: RunRef, afterSeq = 0): Promise<NumberedEvent[]> {
  const seen: NumberedEvent[] = [];
  for await (const one of runs.subscribe(run, afterSeq, new AbortController().signal)) seen.push(one);
  return seen;
}

export async function waitForExit(instance: Instance, run: RunRef): Promise<RunExit> {
  for await (const { news } of instance.runs.subscribe(run, 0, new AbortController().signal))
    if (news.type === 'exit') return news;
  throw new Error('the run was not shown to its end');
}

/** What a stream said, put together. */
export function outputText(seen: readonly NumberedEvent[], stream: 'stdout' | 'stderr' = 'stdout'): string {
  const outputs = seen.flatMap(({ news }) =>
    news.type === 'output' && news.stream === stream ? [news.data] : [],
  );
  return Buffer.concat(outputs).toString();
}

/** The events of a run up to the first that will do, and the way to see the others. */
export async function firstEvent(
  { runs }: Instance,
  run: RunRef,
  matches: (one: NumberedEvent) => boolean,
): Promise<NumberedEvent> {
  const enough = new AbortController();
  try {
    for await (const one of runs.subscribe(run, 0, enough.signal)) if (matches(one)) return one;
  } finally {
    enough.abort();
  }
  throw new Error('the run ended before');
}
