import { writeAuditEvent } from '../audit/service.ts';
import { BYOK_TIER } from '../config/tiers.ts';
import type { Principal } from '../http/principal.ts';
import type { ActiveWork, EndWork } from '../identity/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import { isAppError } from '../lib/errors.ts';
import { randomId } from '../lib/ids.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { Runner, ServerType, TargetServer, ServerTestResult } from '../runners/runner.ts';
import { getValidConfig, assertNoMasks } from './config-input.ts';
import { checkJumpChain, createListJumpServerIds } from './jump-chain.ts';
import type { ServerTestView, TestServerDraft } from './schema.ts';
import { getServer, listServers, saveServerTest } from './servers-store.ts';
import type { RunnerAccess, TargetBuilder } from './open-server.ts';
import { toServerTestView } from './views.ts';

/** The caller of a test. */
export interface ServerTestCall {
  principal: Principal;
  requestId: string;
  /** Aborts the test when the client has disconnected. */
  disconnected: AbortSignal;
}

/** Tests of servers, stage by stage. */
export interface ServerTests {
  /**
   * Tests a stored server, also a paused one. Stores the result unless the server was changed during the test.
   * @throws AppError `not_found` (404), `rate_limited` (429); `validation_failed` (400), `scope_required` (403) when
   *   this server type is not available; `unauthenticated` (401) when the user is signed out during the test;
   *   `keycloak_unavailable`, `database_unavailable`, `draining`, `busy` (503).
   */
  test(call: ServerTestCall, id: string): Promise<ServerTestView>;
  /** Tests a configuration without storing it. @throws AppError as {@link test}. */
  testUnsaved(call: ServerTestCall, input: TestServerDraft): Promise<ServerTestView>;
}

export interface ServerTestsDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  runnerAccess: RunnerAccess;
  targetBuilder: TargetBuilder;
  activeWork: ActiveWork;
  log: Log;
  /** Time limit of one test. */
  testTimeoutMs?: number;
}

const MAX_TESTS_PER_MINUTE = 10;
const TEST_TIMEOUT_MS = 60_000;

/** The limit per minute is counted per process. */
export function createServerTests(deps: ServerTestsDeps): ServerTests {
  const {
    database,
    runnerAccess,
    targetBuilder,
    activeWork,
    log,
    testTimeoutMs: timeoutMs = TEST_TIMEOUT_MS,
  } = deps;
  const message = `At most ${MAX_TESTS_PER_MINUTE} tests of servers a minute. Wait, then test the server again.`;
  const listJumpServerIds = createListJumpServerIds(deps.runners);
  const rateLimit = createRateLimit({ maxUses: MAX_TESTS_PER_MINUTE, rejectionDetail: message });

  /** Runs one test. It is aborted by the time limit, by the client's disconnection, and by the end of the sign-in, of its tier or role. */
  async function run(
    { principal, disconnected }: ServerTestCall,
    runner: Runner,
    open: () => Promise<TargetServer>,
  ): Promise<ServerTestResult> {
    const abortController = new AbortController();
    const timeout = AbortSignal.timeout(timeoutMs);
    const end: EndWork = (_reason, error) => abortController.abort(error);
    const needs = { tier: BYOK_TIER, operatorRole: runner.type === 'local' };
    const unregister = activeWork.register(principal, end, needs);
    try {
      const target = await open();
      return await runner.test(target, AbortSignal.any([disconnected, timeout, abortController.signal]));
    } catch (error) {
      abortController.signal.throwIfAborted();
      if (disconnected.aborted)
        return failedTest('error', 'The test was cancelled because the client disconnected.');
      if (timeout.aborted) return failedTest('offline', `The test did not end within ${timeoutMs / 1000} s.`);
      return toFailedTest(error);
    } finally {
      unregister();
    }
  }

  return {
    async test(call, id) {
      const { principal, requestId, disconnected } = call;
      const userId = principal.user.id;
      const owner = userOwner(userId);
      await rateLimit.consume(userId);
      const servers = await database.withOwner(owner, async (sql) => {
        const all = await listServers(sql);
        const object = `server:${getServer(all, id).id}`;
        await writeAuditEvent(sql, { owner, actor: owner, action: 'server.tested', object, requestId });
        return all;
      });
      const server = getServer(servers, id);
      const runner = await runnerAccess.getAllowedRunner(userId, server.serverType);
      const result = await run(call, runner, () => targetBuilder.fromStored(userId, servers, server));
      const view = toServerTestView(result);
      const { status, message, details } = view;
      log.info(
        { event: 'execution_server_tested', user: userId, id, status },
        'an execution server was tested',
      );
      if (!disconnected.aborted) {
        const stored = { status, details: { message, ...details } };
        await database.withOwner(owner, (sql) => saveServerTest(sql, server, stored));
      }
      return view;
    },

    async testUnsaved(call, input) {
      const userId = call.principal.user.id;
      const runner = await runnerAccess.getAllowedRunner(userId, input.server_type);
      assertNoMasks(input.connection_config);
      const serverId = `test-${randomId()}`;
      const config = await getValidConfig(runner, input.connection_config);
      const servers = await database.withOwner(userOwner(userId), listServers);
      const node = { id: serverId, name: 'this server', serverType: runner.type, isActive: true };
      checkJumpChain(servers, { ...node, config: config as Record<string, unknown> }, listJumpServerIds);
      // Settings that are refused are no test.
      await rateLimit.consume(userId);
      const draft = {
        serverId,
        version: 0,
        config,
        hostKey: input.host_key ?? null,
        workspacePath: input.workspace_path ?? null,
      };
      const result = await run(call, runner, () => targetBuilder.fromDraft(userId, servers, runner, draft));
      return toServerTestView(result);
    },
  };
}

/** An error that prevents the test is also a result, so that the previous result does not stay. */
function toFailedTest(error: unknown): ServerTestResult {
  const isServerError = ['key_undecryptable', 'not_found', 'server_paused', 'validation_failed'].some(
    (code) => isAppError(error) && error.code === code,
  );
  if (!isServerError || !isAppError(error)) throw error;
  return failedTest('error', error.detail);
}

function failedTest(status: ServerTestResult['status'], message: string): ServerTestResult {
  return { status, message, stages: [], hostKey: null };
}
