import { recordAudit } from '../audit/service.ts';
import { draining } from '../http/draining.ts';
import type { Principal } from '../http/principal.ts';
import type { LiveWork } from '../identity/service.ts';
import type { Database } from '../lib/database.ts';
import { isAppError, unauthenticated } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { Runner, ServerType, Target, TestResult } from '../runners/runner.ts';
import { getConfig, refuseMasks } from './config-input.ts';
import { checkReferences, createReferences } from './references.ts';
import type { ServerTested, TestUnsaved } from './schema.ts';
import type { ServerKinds } from './server-kinds.ts';
import { getServer } from './server-reads.ts';
import { listServers, recordTest } from './servers-store.ts';
import type { Targets } from './targets.ts';
import { testView } from './views.ts';

/** Who wants a test, and until when. */
export interface TestCall {
  principal: Principal;
  requestId: string;
  /** Ends the test: nobody waits for its result any more. */
  gone: AbortSignal;
}

/** Tests of servers, stage by stage. */
export interface ServerTests {
  /**
   * Tests a stored server, also a paused one, and stores what was found unless it was changed meanwhile.
   * @throws AppError `not_found` (404), `rate_limited` (429); `validation_failed` (400), `scope_required` (403) where
   *   this kind is not to be had; `unauthenticated` (401) when its user is signed out meanwhile;
   *   `keycloak_unavailable`, `database_unavailable`, `draining` (503).
   */
  test(call: TestCall, id: string): Promise<ServerTested>;
  /** Tests a configuration that is not stored; nothing of it is kept. @throws AppError as of {@link test}. */
  testUnsaved(call: TestCall, wish: TestUnsaved): Promise<ServerTested>;
}

export interface ServerTestsDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: ServerKinds;
  targets: Targets;
  liveWork: LiveWork;
  log: Log;
  /** For one test. */
  testTimeoutMs?: number;
}

const TESTS_A_MINUTE = 10;
const TIMEOUT_MS = 60_000;

/** Builds the tests. The limit is counted by this process alone. */
export function createServerTests(deps: ServerTestsDeps): ServerTests {
  const { database, kinds, targets, liveWork, log, testTimeoutMs: timeoutMs = TIMEOUT_MS } = deps;
  const refusal = `At most ${TESTS_A_MINUTE} tests of servers a minute. Wait, then test again.`;
  const referencesOf = createReferences(deps.runners);
  const limit = createRateLimit({ points: TESTS_A_MINUTE, refusal });

  /** Runs the test of one target under the time limit, the client's patience and the user's right to it. */
  async function run(
    { principal, gone }: TestCall,
    runner: Runner,
    open: () => Promise<Target>,
  ): Promise<TestResult> {
    const ending = new AbortController();
    const timeout = AbortSignal.timeout(timeoutMs);
    const unregister = liveWork.register(principal, (reason) => {
      ending.abort(reason === 'signed_out' ? unauthenticated() : draining());
    });
    try {
      const target = await open();
      return await runner.test(target, AbortSignal.any([gone, timeout, ending.signal]));
    } catch (error) {
      ending.signal.throwIfAborted();
      if (gone.aborted) return failure('error', 'The test was given up: nobody waited for it any more.');
      if (timeout.aborted) return failure('offline', `The test did not end within ${timeoutMs / 1000} s.`);
      return readFailure(error);
    } finally {
      unregister();
    }
  }

  return {
    async test(call, id) {
      const { principal, requestId, gone } = call;
      const userId = principal.user.id;
      const owner = userOwner(userId);
      await limit.take(userId);
      const servers = await database.withOwner(owner, async (sql) => {
        const all = await listServers(sql);
        const object = `server:${getServer(all, id).id}`;
        await recordAudit(sql, { owner, actor: owner, action: 'server.tested', object, requestId });
        return all;
      });
      const server = getServer(servers, id);
      const runner = await kinds.get(userId, server.serverType);
      const result = await run(call, runner, () => targets.open(userId, servers, server));
      const view = testView(result);
      const { status, message, details } = view;
      log.info(
        { event: 'execution_server_tested', user: userId, id, status },
        'an execution server was tested',
      );
      if (!gone.aborted) {
        const facts = { status, details: { message, ...details } };
        await database.withOwner(owner, (sql) => recordTest(sql, server, facts));
      }
      return view;
    },

    async testUnsaved(call, wish) {
      const userId = call.principal.user.id;
      await limit.take(userId);
      const runner = await kinds.get(userId, wish.server_type);
      refuseMasks(wish.connection_config);
      const serverId = `test-${randomId()}`;
      const config = await getConfig(runner, wish.connection_config);
      const servers = await database.withOwner(userOwner(userId), listServers);
      const node = { id: serverId, name: 'it', serverType: runner.type, isActive: true };
      checkReferences(servers, { ...node, config: config as Record<string, unknown> }, referencesOf);
      const draft = {
        serverId,
        version: 0,
        config,
        hostKey: wish.host_key ?? null,
        workspacePath: wish.workspace_path ?? null,
      };
      const result = await run(call, runner, () => targets.draft(userId, servers, runner, draft));
      return testView(result);
    },
  };
}

/** What keeps a server from being tried at all is a result too: its last one must not stand. */
function readFailure(error: unknown): TestResult {
  const isOfTheServer = ['key_undecryptable', 'not_found', 'server_paused', 'validation_failed'].some(
    (code) => isAppError(error) && error.code === code,
  );
  if (!isOfTheServer || !isAppError(error)) throw error;
  return failure('error', error.detail);
}

function failure(status: TestResult['status'], message: string): TestResult {
  return { status, message, stages: [], hostKey: null };
}
