import type { Database } from '../lib/postgres/database.ts';
import { userOwner } from '../lib/owner.ts';
import type { ServerView } from './schema.ts';
import type { RunnerAccess } from './open-server.ts';
import { getDefaultServer, getServer, listServers, type StoredServer } from './servers-store.ts';
import { toServerView } from './views.ts';

/** Reads servers for their owners. Nothing is decrypted. */
export interface ServerReads {
  /** In the order of creation. */
  list(userId: string): Promise<ServerView[]>;
  /** @throws AppError `not_found` (404), also for another owner's. */
  get(userId: string, id: string): Promise<ServerView>;
  /** @throws AppError `no_default_server` (404). */
  getDefault(userId: string): Promise<ServerView>;
}

export function createServerReads({
  database,
  runnerAccess,
}: {
  database: Database;
  runnerAccess: RunnerAccess;
}): ServerReads {
  const read = (userId: string) => database.withOwner(userOwner(userId), listServers);
  const view = (server: StoredServer) => toServerView(server, runnerAccess.findRunner(server.serverType));
  return {
    list: async (userId) => (await read(userId)).map(view),
    get: async (userId, id) => view(getServer(await read(userId), id)),
    getDefault: async (userId) => view(getDefaultServer(await read(userId))),
  };
}
