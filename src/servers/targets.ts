import { AppError, notFound } from '../lib/errors.ts';
import type { Keyring } from '../lib/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey, Runner, ServerType, Target } from '../runners/runner.ts';
import { MAX_HOPS } from './references.ts';
import { openConfig } from './sealing.ts';
import type { StoredServer } from './servers-store.ts';

/** A configuration in the clear, stored or not, and the settings around it. */
export interface Draft {
  serverId: string;
  version: number;
  config: unknown;
  hostKey: HostKey | null;
  workspacePath: string | null;
}

/** Opens servers, with all that they go through. */
export interface Targets {
  /**
   * Opens a stored server.
   * @param servers all servers of the user, as one query read them.
   * @throws AppError `key_undecryptable` (424) when the stored secrets do not open or were sealed for another
   *   destination, here or on the way; `not_found` (404) and `server_paused` (409) for a server on the way;
   *   `validation_failed` (400) for a way that is too long.
   */
  open(userId: string, servers: readonly StoredServer[], server: StoredServer): Promise<Target>;
  /** The same for a configuration that is not stored. */
  draft(userId: string, servers: readonly StoredServer[], runner: Runner, draft: Draft): Promise<Target>;
}

export interface TargetsDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
}

export function createTargets({ keyring, runners }: TargetsDeps): Targets {
  async function openAt(
    hops: number,
    userId: string,
    servers: readonly StoredServer[],
    server: StoredServer,
  ): Promise<Target> {
    const runner = runners.get(server.serverType);
    const place = { owner: userOwner(userId), serverId: server.id, hostKey: server.hostKey };
    const config = runner && (await openConfig(keyring, runner, place, server.config));
    if (runner === undefined || config === undefined) throw undecryptable(server.name);
    return build(hops, userId, servers, runner, { ...server, serverId: server.id, config });
  }

  async function build(
    hops: number,
    userId: string,
    servers: readonly StoredServer[],
    runner: Runner,
    { serverId, version, config, hostKey, workspacePath }: Draft,
  ): Promise<Target> {
    const references = new Map<string, Target>();
    for (const id of runner.references(config)) {
      // A circle ends here too.
      if (hops === MAX_HOPS) throw tooFar();
      const next = findHop(servers, id);
      references.set(id, await openAt(hops + 1, userId, servers, next));
    }
    return { serverId, owner: userOwner(userId), version, config, hostKey, workspacePath, references };
  }

  return {
    open: (userId, servers, server) => openAt(0, userId, servers, server),
    draft: (userId, servers, runner, draft) => build(0, userId, servers, runner, draft),
  };
}

/** The database shows a user's own servers alone: one of somebody else's is not there. */
function findHop(servers: readonly StoredServer[], id: string): StoredServer {
  const hop = servers.find((each) => each.id === id && each.serverType === 'ssh');
  if (hop === undefined) {
    throw notFound('The SSH server that this one goes through');
  }
  if (!hop.isActive) {
    throw new AppError('server_paused', `This server goes through “${hop.name}”, which is paused.`);
  }
  return hop;
}

/** 424: the same for a wrong key, an altered token and another destination. */
export function undecryptable(name: string): AppError {
  return new AppError(
    'key_undecryptable',
    `The stored secrets of “${name}” do not open, or were stored for another address. Enter its connection_config again.`,
  );
}

function tooFar(): AppError {
  return new AppError(
    'validation_failed',
    `A server may go through at most ${MAX_HOPS} others, and not in a circle.`,
  );
}
