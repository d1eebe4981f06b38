import type { Database } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import type { Runner, ServerType, TargetServer } from '../runners/runner.ts';
import { createListJumpServerIds, listJumpServers } from './jump-chain.ts';
import type { RunnerAccess } from './runner-access.ts';
import { getDefaultServer, getServer } from './server-reads.ts';
import { listServers, saveServerUse, type StoredServer } from './servers-store.ts';
import type { TargetBuilder } from './targets.ts';

/** A server that code may be run on now: one snapshot, its secrets opened. */
export interface OpenServer {
  id: string;
  name: string;
  serverType: ServerType;
  version: number;
  /** Never logged, never stored; lives as long as the run. */
  target: TargetServer;
  runner: Runner;
}

/** A server that what is left of a run is looked for on. */
interface CleanupServer {
  target: TargetServer;
  /** Nothing can be started through it. */
  runner: Pick<Runner, 'cleanUp'>;
}

/** For those who run code. */
export interface ServerOpener {
  /**
   * Opens a server of a user for one run. The caller has checked the user's tier.
   * @param ref the server's id, or `default`.
   * @throws AppError `not_found` (404), also for another owner's server and where one that it goes through is gone;
   *   `no_default_server` (404); `server_paused`, `host_key_unconfirmed` (409), also for those that it goes through;
   *   `validation_failed` (400), `scope_required` (403) where this kind is not to be had; `key_undecryptable` (424);
   *   `keycloak_unavailable`, `database_unavailable` (503).
   */
  openForUse(userId: string, ref: string): Promise<OpenServer>;
  /**
   * Opens a server of a user to end what is left of a run there, even where it is paused, or one is that it goes
   * through: whoever pauses a server wants nothing to go on there.
   * @throws AppError as of {@link openForUse}, but never `server_paused`.
   */
  openForReaping(userId: string, id: string): Promise<CleanupServer>;
  /** Keeps and logs that a server is used now. @throws AppError `database_unavailable` (503). */
  noteUse(userId: string, server: Pick<OpenServer, 'id' | 'name'>): Promise<void>;
}

export interface ServerOpenerDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: RunnerAccess;
  targets: TargetBuilder;
  log: Log;
}

export function createServerOpener({
  database,
  runners,
  kinds,
  targets,
  log,
}: ServerOpenerDeps): ServerOpener {
  const referencesOf = createListJumpServerIds(runners);
  const serversOf = (userId: string) => database.withOwner(userOwner(userId), listServers);

  async function open(userId: string, ref: string, servers: readonly StoredServer[]): Promise<OpenServer> {
    const server = ref === 'default' ? getDefaultServer(servers) : getServer(servers, ref);
    const { id, name, serverType, version } = server;
    if (!server.isActive) throw new AppError('server_paused', `“${name}” is paused. Switch it on first.`);
    const runner = await kinds.getAllowedRunner(userId, serverType);
    const target = await targets.fromStored(userId, servers, server);
    for (const each of [server, ...listJumpServers(servers, server, referencesOf)]) {
      if (isHostKeyUnconfirmed(each, runners)) throw hostKeyUnconfirmed(each);
    }
    return { id, name, serverType, version, target, runner };
  }

  return {
    openForUse: async (userId, ref) => open(userId, ref, await serversOf(userId)),
    async openForReaping(userId, id) {
      const servers = await serversOf(userId);
      return open(
        userId,
        id,
        servers.map((server) => ({ ...server, isActive: true })),
      );
    },
    async noteUse(userId, { id, name }) {
      await database.withOwner(userOwner(userId), (sql) => saveServerUse(sql, id));
      log.info({ event: 'execution_server_used', user: userId, id, name }, 'an execution server is used');
    },
  };
}

function isHostKeyUnconfirmed(server: StoredServer, runners: ReadonlyMap<ServerType, Runner>): boolean {
  return runners.get(server.serverType)?.needsHostKey === true && server.hostKey === null;
}

function hostKeyUnconfirmed({ id, name }: StoredServer): AppError {
  return new AppError(
    'host_key_unconfirmed',
    `The host key of “${name}” is not confirmed. Test the server, compare the fingerprint, and confirm it.`,
    { extra: { server_id: id } },
  );
}
