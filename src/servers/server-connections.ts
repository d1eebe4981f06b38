import type { Log } from '../lib/log.ts';
import { parseOwner, userOwner, type Owner } from '../lib/owner.ts';
import type { Runner, ServerType } from '../runners/runner.ts';

/** What this process keeps between the runs of users, with decrypted secrets: connections and pre-started containers. */
export interface ServerConnections {
  listConnectedUserIds(): string[];
  /** Closes what is idle, and the rest when it becomes idle. */
  closeUserConnections(userId: string): void;
}

export interface ServerConnectionsDeps {
  runners: ReadonlyMap<ServerType, Pick<Runner, 'listOwners' | 'releaseOwner'>>;
  log: Log;
}

export function createServerConnections({ runners, log }: ServerConnectionsDeps): ServerConnections {
  async function close(userId: string): Promise<void> {
    // In reverse order: Docker removes its containers through the connections of the SSH runner.
    for (const runner of [...runners.values()].reverse()) {
      await runner.releaseOwner(userOwner(userId)).catch((error: unknown) => {
        log.warn(
          { err: error, user: userId },
          'the connections to the servers of a user could not be closed',
        );
      });
    }
  }

  return {
    listConnectedUserIds: () => [
      ...new Set([...runners.values()].flatMap((runner) => runner.listOwners()).flatMap(listUserIds)),
    ],
    // Not awaited, so that a slow host does not delay the sign-outs of other users.
    closeUserConnections: (userId) => void close(userId),
  };
}

/** No id for an organization. */
function listUserIds(owner: Owner): string[] {
  const parsed = parseOwner(owner);
  return parsed?.kind === 'user' ? [parsed.id] : [];
}
