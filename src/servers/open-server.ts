import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import {
  LIMIT_NAMES,
  type Limits,
  type Runner,
  type ServerType,
  type TargetServer,
} from '../runners/runner.ts';
import { createListJumpServerIds, listJumpServers } from './jump-chain.ts';
import type { RunnerAccess } from './runner-access.ts';
import {
  getDefaultServer,
  getServer,
  listServers,
  saveServerUse,
  type StoredServer,
} from './servers-store.ts';
import type { TargetBuilder } from './targets.ts';

/** A server that may run code now: one snapshot with decrypted secrets. */
export interface OpenServer {
  id: string;
  name: string;
  serverType: ServerType;
  /** Kept as long as the run. Never logged, never stored. */
  target: TargetServer;
  runner: Runner;
}

/** A server on which the remains of a run are cleaned up. */
interface CleanupServer {
  target: TargetServer;
  /** Cannot start a run. */
  runner: Pick<Runner, 'cleanUp'>;
}

/** Opens servers for runs. */
export interface ServerOpener {
  /**
   * Opens a server of a user for one run. The caller has checked the user's tier.
   * @param ref the server's id, or `default`.
   * @throws AppError `not_found` (404), also for another owner's server and for a missing jump server;
   *   `no_default_server` (404); `server_paused`, `host_key_unconfirmed` (409), also for its jump servers;
   *   `validation_failed` (400), `scope_required` (403) when this server type is not available; `limit_unsupported`
   *   (422) naming the limits that the server cannot enforce; `key_undecryptable` (424); `keycloak_unavailable`,
   *   `database_unavailable` (503).
   */
  openForRun(userId: string, ref: string, limits: Limits): Promise<OpenServer>;
  /**
   * Opens a server of a user to clean up a run there. Paused servers and jump servers are opened too, because nothing
   * of a run may be left on a paused server.
   * @throws AppError as {@link openForRun}, but never `server_paused`.
   */
  openForCleanup(userId: string, id: string): Promise<CleanupServer>;
  /** Stores and logs the use of a server. @throws AppError `database_unavailable` (503). */
  recordUse(userId: string, server: Pick<OpenServer, 'id' | 'name'>): Promise<void>;
}

export interface ServerOpenerDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  runnerAccess: RunnerAccess;
  targetBuilder: TargetBuilder;
  log: Log;
}

export function createServerOpener({
  database,
  runners,
  runnerAccess,
  targetBuilder,
  log,
}: ServerOpenerDeps): ServerOpener {
  const listJumpServerIds = createListJumpServerIds(runners);
  const serversOf = (userId: string) => database.withOwner(userOwner(userId), listServers);

  async function open(userId: string, ref: string, servers: readonly StoredServer[]): Promise<OpenServer> {
    const server = ref === 'default' ? getDefaultServer(servers) : getServer(servers, ref);
    const { id, name, serverType } = server;
    if (!server.isActive) throw new AppError('server_paused', `“${name}” is paused. Switch it on first.`);
    const runner = await runnerAccess.getAllowedRunner(userId, serverType);
    const target = await targetBuilder.fromStored(userId, servers, server);
    for (const each of [server, ...listJumpServers(servers, server, listJumpServerIds)]) {
      if (isHostKeyUnconfirmed(each, runners)) throw hostKeyUnconfirmed(each);
    }
    return { id, name, serverType, target, runner };
  }

  return {
    async openForRun(userId, ref, limits) {
      const server = await open(userId, ref, await serversOf(userId));
      assertLimitsSupported(server, limits);
      return server;
    },
    async openForCleanup(userId, id) {
      const servers = await serversOf(userId);
      return open(
        userId,
        id,
        servers.map((server) => ({ ...server, isActive: true })),
      );
    },
    async recordUse(userId, { id, name }) {
      await database.withOwner(userOwner(userId), (sql) => saveServerUse(sql, id));
      log.info({ event: 'execution_server_used', user: userId, id, name }, 'an execution server is used');
    },
  };
}

function assertLimitsSupported({ runner, target, name }: OpenServer, limits: Limits): void {
  const names = runner.unenforceableLimits(target.config, limits).map((limit) => LIMIT_NAMES[limit]);
  if (names.length === 0) return;
  throw new AppError('limit_unsupported', `${name} cannot enforce ${names.join(', ')}. Leave it out.`, {
    errors: names.map((limit) => ({ path: `limits.${limit}`, message: 'cannot be enforced on this server' })),
  });
}

function isHostKeyUnconfirmed(server: StoredServer, runners: ReadonlyMap<ServerType, Runner>): boolean {
  return runners.get(server.serverType)?.needsHostKey === true && server.hostKey === null;
}

function hostKeyUnconfirmed({ id, name }: StoredServer): AppError {
  return new AppError(
    'host_key_unconfirmed',
    `The host key of “${name}” is not confirmed. Test the server, compare the fingerprint and confirm it.`,
    { extra: { server_id: id } },
  );
}
