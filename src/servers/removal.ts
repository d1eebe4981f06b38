import { deleteServer } from './servers-store.ts';
import type { ServerWriter } from './server-writer.ts';

/** Removal of a deleted user's servers. */
export interface ServerRemoval {
  /**
   * Deletes all servers of a user.
   * @param actor for the audit trail, which is kept.
   * @returns the number of deleted servers.
   * @throws AppError `database_unavailable` (503).
   */
  removeUser(userId: string, requestId: string, actor: string): Promise<number>;
}

export function createServerRemoval({ writer }: { writer: ServerWriter }): ServerRemoval {
  return {
    removeUser: (userId, requestId, actor) =>
      writer.write({ userId, requestId, actor }, async ({ sql, servers, recordChange }) => {
        for (const { id } of servers) {
          await recordChange('server.deleted', id);
          await deleteServer(sql, id);
        }
        return servers.length;
      }),
  };
}
