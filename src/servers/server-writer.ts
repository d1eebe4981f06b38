import { writeAuditEvent, type AuditAction } from '../audit/service.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createKeyedMutex } from '../lib/async/keyed-mutex.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { createListJumpServerIds, listDependents, type JumpChainNode } from './jump-chain.ts';
import { listServers, lockServers, type StoredServer } from './servers-store.ts';

/** The author of a change and the request id, for the audit trail. */
export interface ServerChangeAuthor {
  userId: string;
  requestId: string;
  /** For the audit trail; by default the user. */
  actor?: string;
}

export interface ServerWriter {
  /**
   * Changes a user's servers in one transaction, one change at a time: the servers that `work` receives are unchanged
   * until its commit.
   * @throws what `work` throws, with nothing changed; AppError `busy` (503) when the owner's mutex is not free in time.
   */
  write<T>(author: ServerChangeAuthor, work: (transaction: ServerTransaction) => Promise<T>): Promise<T>;
}

export interface ServerTransaction {
  sql: Sql;
  servers: readonly StoredServer[];
  /** Writes an audit event for a server and discards the connections to it after the commit. */
  recordChange: (action: AuditAction, serverId: string) => Promise<void>;
}

export interface ServerWriterDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  log: Log;
}

/** For the mutex of this process only. The statement timeout limits the wait for other processes. */
const MAX_WAIT_MS = 20_000;

export function createServerWriter({ database, runners, log }: ServerWriterDeps): ServerWriter {
  const listJumpServerIds = createListJumpServerIds(runners);
  // Every wait for the advisory lock takes a database connection. The mutex allows one such wait per owner.
  const ownerMutex = createKeyedMutex(busy);

  /** For this process; others compare the version. Not awaited, so that a slow host does not delay the response. */
  function releaseConnections(servers: readonly JumpChainNode[], id: string): void {
    const changed = servers.filter((server) => server.id === id);
    for (const server of [...changed, ...listDependents(servers, id, listJumpServerIds)]) {
      runners
        .get(server.serverType)
        ?.release(server.id)
        .catch((error: unknown) => {
          log.warn(
            { err: error, server: server.id },
            'the connections to a changed server could not be closed',
          );
        });
    }
  }

  return {
    async write({ userId, requestId, actor }, work) {
      const owner = userOwner(userId);
      const changedIds: string[] = [];
      const write = async (sql: Sql) => {
        await lockServers(sql, userId);
        const before = await listServers(sql);
        const recordChange = async (action: AuditAction, serverId: string) => {
          changedIds.push(serverId);
          const object = `server:${serverId}`;
          await writeAuditEvent(sql, { owner, actor: actor ?? owner, action, object, requestId });
        };
        return { result: await work({ sql, servers: before, recordChange }), servers: before };
      };
      const { result, servers } = await ownerMutex.run(owner, Date.now() + MAX_WAIT_MS, () =>
        database.withOwner(owner, write),
      );
      for (const id of changedIds) releaseConnections(servers, id);
      return result;
    },
  };
}

function busy(): AppError {
  return new AppError(
    'busy',
    'Other changes of your servers are still being written. Try again in a few seconds.',
    {
      headers: { 'retry-after': '5' },
    },
  );
}
