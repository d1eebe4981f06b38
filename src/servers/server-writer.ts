import { writeAuditEvent, type AuditAction } from '../audit/service.ts';
import type { Database, Sql } from '../lib/postgres/database.ts';
import { AppError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import { userOwner } from '../lib/owner.ts';
import { createKeyedMutex } from '../lib/async/keyed-mutex.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { createListJumpServerIds, listDependents, type JumpChainNode } from './jump-chain.ts';
import { listServers, lockServers, type StoredServer } from './servers-store.ts';

/** Who changes something, and in which request: for the audit trail. */
export interface ServerChangeAuthor {
  userId: string;
  requestId: string;
  /** For the audit trail; the user where it is missing. */
  actor?: string;
}

export interface ServerWriter {
  /**
   * Changes a user's servers in one transaction, one change at a time: `work` sees them as they are, and what it
   * judges by still holds when it commits.
   * @throws what `work` throws, with nothing changed; AppError `busy` (503) when the turn does not come in time.
   */
  write<T>(author: ServerChangeAuthor, work: (hold: ServerTransaction) => Promise<T>): Promise<T>;
}

export interface ServerTransaction {
  sql: Sql;
  servers: readonly StoredServer[];
  /** Puts on the audit trail what is done to a server, and has connections to it given up after the commit. */
  recordChange: (action: AuditAction, serverId: string) => Promise<void>;
}

export interface ServerWriterDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  log: Log;
}

/** For the turn alone; a statement's own time limit ends the wait for other processes. */
const MAX_WAIT_MS = 20_000;

export function createServerWriter({ database, runners, log }: ServerWriterDeps): ServerWriter {
  const referencesOf = createListJumpServerIds(runners);
  // Waits for the lock take a connection each, which everybody's requests need: one per owner may.
  const ownerMutex = createKeyedMutex(busy);

  /** In this process; others notice by the version. Nobody waits for it: a host that is slow must not hold an answer. */
  function forgetConnections(servers: readonly JumpChainNode[], id: string): void {
    const own = servers.filter((server) => server.id === id);
    for (const server of [...own, ...listDependents(servers, id, referencesOf)]) {
      runners
        .get(server.serverType)
        ?.forget(server.id)
        .catch((error: unknown) => {
          log.warn({ err: error, server: server.id }, 'what was kept of a server could not be let go');
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
        const tell = async (action: AuditAction, serverId: string) => {
          changedIds.push(serverId);
          const object = `server:${serverId}`;
          await writeAuditEvent(sql, { owner, actor: actor ?? owner, action, object, requestId });
        };
        return { result: await work({ sql, servers: before, recordChange: tell }), servers: before };
      };
      const { result, servers } = await ownerMutex.run(owner, Date.now() + MAX_WAIT_MS, () =>
        database.withOwner(owner, write),
      );
      for (const id of changedIds) forgetConnections(servers, id);
      return result;
    },
  };
}

function busy(): AppError {
  return new AppError('busy', 'Other changes to your servers are still being written. Try again shortly.', {
    headers: { 'retry-after': '5' },
  });
}
