import { randomUUID } from 'node:crypto';
import { createLiveWork, type LiveWork } from '../../src/identity/live-work.ts';
import type { Principal, User } from '../../src/http/principal.ts';
import { createDatabase } from '../../src/lib/database.ts';
import { AppError } from '../../src/lib/errors.ts';
import { createKeyring } from '../../src/lib/keyring.ts';
import { createLog } from '../../src/lib/log.ts';
import type { Target } from '../../src/runners/runner.ts';
import type { NumberedNews, RunExit } from '../../src/runs/events.ts';
import { StartRun } from '../../src/runs/schema.ts';
import type { RunName } from '../../src/runs/sealed.ts';
import { createRunService, type RunService, type RunServiceDeps } from '../../src/runs/service.ts';
import type { Tier } from '../../src/tiers.ts';
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
  liveWork: LiveWork;
  /** What is asked when a queued run's turn comes; may be changed. */
  world: { user: User | undefined; isStanding: boolean; refusal: AppError | undefined; version: number };
  /** How often servers were noted as used. */
  used: string[];
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
  const liveWork = createLiveWork();
  const runner = createProcessRunner();
  const world: Instance['world'] = {
    user: userOf('anybody'),
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
      liveWork,
      isStanding: () => Promise.resolve(world.isStanding),
      directory: {
        findUser: (id) => Promise.resolve(world.user === undefined ? undefined : { ...world.user, id }),
        forget: () => undefined,
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
    world,
    used,
    async close() {
      await runs.drain();
      await liveWork.drain();
      await runs.stop();
      await database.close();
    },
  };
}

function targetOf(userId: string, serverId: string, version: number): Target {
  const owner = `user:${userId}` as const;
  const settings = { config: {}, hostKey: null, workspacePath: null, references: new Map() };
  return { serverId, owner, version, ...settings };
}

export function userOf(id: string, tier: Tier = 'starter'): User {
  return { id, username: id, email: null, name: null, tier };
}

/** A signed-in person of the tests; nobody else has the same id. */
export function somebody(): Principal {
  return {
    user: userOf(randomUUID()),
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
): Promise<RunName> {
  return runs.submit(principal, server, StartRun.parse({ command, ...more }), 'req_test');
}

/** Everything that a viewer is shown of a run, up to its exit. */
export async function watch({ runs }: Instance, run: RunName, afterSeq = 0): Promise<NumberedNews[]> {
  const seen: NumberedNews[] = [];
  for await (const one of runs.follow(run, afterSeq, new AbortController().signal)) seen.push(one);
  return seen;
}

export async function exitOf(instance: Instance, run: RunName): Promise<RunExit> {
  for await (const { news } of instance.runs.follow(run, 0, new AbortController().signal))
    if (news.type === 'exit') return news;
  throw new Error('the run was not shown to its end');
}

/** What a stream said, put together. */
export function textOf(seen: readonly NumberedNews[], stream: 'stdout' | 'stderr' = 'stdout'): string {
  const outputs = seen.flatMap(({ news }) =>
    news.type === 'output' && news.stream === stream ? [news.data] : [],
  );
  return Buffer.concat(outputs).toString();
}

/** The events of a run up to the first that will do, and the way to see the others. */
export async function firstNews(
  { runs }: Instance,
  run: RunName,
  willDo: (one: NumberedNews) => boolean,
): Promise<NumberedNews> {
  const enough = new AbortController();
  try {
    for await (const one of runs.follow(run, 0, enough.signal)) if (willDo(one)) return one;
  } finally {
    enough.abort();
  }
  throw new Error('the run ended before');
}
