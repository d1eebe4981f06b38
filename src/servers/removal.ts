import { deleteServer } from './servers-store.ts';
import type { ServerWriter } from './server-writer.ts';

/** Ends what is kept for a person who is no more. */
export interface ServerRemoval {
  /**
   * Deletes all servers of a user.
   * @param actor who ordered it, for the audit trail, which stays.
   * @returns how many there were.
   * @throws AppError `database_unavailable` (503).
   */
  removeOwner(userId: string, requestId: string, actor: string): Promise<number>;
}

export function createServerRemoval({ writer }: { writer: ServerWriter }): ServerRemoval {
  return {
    removeOwner: (userId, requestId, actor) =>
      writer.write({ userId, requestId, actor }, async ({ sql, servers, recordChange: tell }) => {
        for (const { id } of servers) {
          await tell('server.deleted', id);
          await deleteServer(sql, id);
        }
        return servers.length;
      }),
  };
}
