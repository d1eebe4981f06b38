import { writeAuditEvent } from '../audit/service.ts';
import { drainingError } from '../http/draining-error.ts';
import type { Principal } from '../http/principal.ts';
import type { ActiveWork } from '../identity/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import { isAppError, unauthenticated } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { Runner, ServerType, TargetServer, ServerTestResult } from '../runners/runner.ts';
import { getValidConfig, assertNoMasks } from './config-input.ts';
import { checkJumpChain, createListJumpServerIds } from './jump-chain.ts';
import type { ServerTestView, TestUnsavedServer } from './schema.ts';
import type { RunnerAccess } from './runner-access.ts';
import { getServer } from './server-reads.ts';
import { listServers, saveServerTest } from './servers-store.ts';
import type { TargetBuilder } from './targets.ts';
import { toServerTestView } from './views.ts';

/** Who wants a test, and until when. */
export interface ServerTestCall {
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
  test(call: ServerTestCall, id: string): Promise<ServerTestView>;
  /** Tests a configuration that is not stored; nothing of it is kept. @throws AppError as of {@link test}. */
  testUnsaved(call: ServerTestCall, wish: TestUnsavedServer): Promise<ServerTestView>;
}

export interface ServerTestsDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: RunnerAccess;
  targets: TargetBuilder;
  liveWork: ActiveWork;
  log: Log;
  /** For one test. */
  testTimeoutMs?: number;
}

const MAX_TESTS_PER_MINUTE = 10;
const TEST_TIMEOUT_MS = 60_000;

/** Builds the tests. The limit is counted by this process alone. */
export function createServerTests(deps: ServerTestsDeps): ServerTests {
  const { database, kinds, targets, liveWork, log, testTimeoutMs: timeoutMs = TEST_TIMEOUT_MS } = deps;
  const refusal = `At most ${MAX_TESTS_PER_MINUTE} tests of servers a minute. Wait, then test again.`;
  const referencesOf = createListJumpServerIds(deps.runners);
  const limit = createRateLimit({ points: MAX_TESTS_PER_MINUTE, rejectionDetail: refusal });

  /** Runs the test of one target under the time limit, the client's patience and the user's right to it. */
  async function run(
    { principal, gone }: ServerTestCall,
    runner: Runner,
    open: () => Promise<TargetServer>,
  ): Promise<ServerTestResult> {
    const ending = new AbortController();
    const timeout = AbortSignal.timeout(timeoutMs);
    const unregister = liveWork.register(principal, (reason) => {
      ending.abort(reason === 'signed_out' ? unauthenticated() : drainingError());
    });
    try {
      const target = await open();
      return await runner.test(target, AbortSignal.any([gone, timeout, ending.signal]));
    } catch (error) {
      ending.signal.throwIfAborted();
      if (gone.aborted) return failedTest('error', 'The test was given up: nobody waited for it any more.');
      if (timeout.aborted) return failedTest('offline', `The test did not end within ${timeoutMs / 1000} s.`);
      return toFailedTest(error);
    } finally {
      unregister();
    }
  }

  return {
    async test(call, id) {
      const { principal, requestId, gone } = call;
      const userId = principal.user.id;
      const owner = userOwner(userId);
      await limit.consume(userId);
      const servers = await database.withOwner(owner, async (sql) => {
        const all = await listServers(sql);
        const object = `server:${getServer(all, id).id}`;
        await writeAuditEvent(sql, { owner, actor: owner, action: 'server.tested', object, requestId });
        return all;
      });
      const server = getServer(servers, id);
      const runner = await kinds.getAllowedRunner(userId, server.serverType);
      const result = await run(call, runner, () => targets.fromStored(userId, servers, server));
      const view = toServerTestView(result);
      const { status, message, details } = view;
      log.info(
        { event: 'execution_server_tested', user: userId, id, status },
        'an execution server was tested',
      );
      if (!gone.aborted) {
        const facts = { status, details: { message, ...details } };
        await database.withOwner(owner, (sql) => saveServerTest(sql, server, facts));
      }
      return view;
    },

    async testUnsaved(call, wish) {
      const userId = call.principal.user.id;
      await limit.consume(userId);
      const runner = await kinds.getAllowedRunner(userId, wish.server_type);
      assertNoMasks(wish.connection_config);
      const serverId = `test-${randomId()}`;
      const config = await getValidConfig(runner, wish.connection_config);
      const servers = await database.withOwner(userOwner(userId), listServers);
      const node = { id: serverId, name: 'it', serverType: runner.type, isActive: true };
      checkJumpChain(servers, { ...node, config: config as Record<string, unknown> }, referencesOf);
      const draft = {
        serverId,
        version: 0,
        config,
        hostKey: wish.host_key ?? null,
        workspacePath: wish.workspace_path ?? null,
      };
      const result = await run(call, runner, () => targets.fromDraft(userId, servers, runner, draft));
      return toServerTestView(result);
    },
  };
}

/** What keeps a server from being tried at all is a result too: its last one must not stand. */
function toFailedTest(error: unknown): ServerTestResult {
  const isOfTheServer = ['key_undecryptable', 'not_found', 'server_paused', 'validation_failed'].some(
    (code) => isAppError(error) && error.code === code,
  );
  if (!isOfTheServer || !isAppError(error)) throw error;
  return failedTest('error', error.detail);
}

function failedTest(status: ServerTestResult['status'], message: string): ServerTestResult {
  return { status, message, stages: [], hostKey: null };
}
