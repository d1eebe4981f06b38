import { AppError, notFound } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey, Runner, ServerType, TargetServer } from '../runners/runner.ts';
import { MAX_JUMP_SERVERS } from './jump-chain.ts';
import { decryptConfig } from './secret-encryption.ts';
import type { StoredServer } from './servers-store.ts';

/** A configuration in the clear, stored or not, and the settings around it. */
export interface ServerDraft {
  serverId: string;
  version: number;
  config: unknown;
  hostKey: HostKey | null;
  workspacePath: string | null;
}

/** Opens servers, with all that they go through. */
export interface TargetBuilder {
  /**
   * Opens a stored server.
   * @param servers all servers of the user, as one query read them.
   * @throws AppError `key_undecryptable` (424) when the stored secrets do not open or were sealed for another
   *   destination, here or on the way; `not_found` (404) and `server_paused` (409) for a server on the way;
   *   `validation_failed` (400) for a way that is too long.
   */
  fromStored(userId: string, servers: readonly StoredServer[], server: StoredServer): Promise<TargetServer>;
  /** The same for a configuration that is not stored. */
  fromDraft(
    userId: string,
    servers: readonly StoredServer[],
    runner: Runner,
    fromDraft: ServerDraft,
  ): Promise<TargetServer>;
}

export interface TargetBuilderDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
}

export function createTargetBuilder({ keyring, runners }: TargetBuilderDeps): TargetBuilder {
  async function buildStored(
    depth: number,
    userId: string,
    servers: readonly StoredServer[],
    server: StoredServer,
  ): Promise<TargetServer> {
    const runner = runners.get(server.serverType);
    const place = { owner: userOwner(userId), serverId: server.id, hostKey: server.hostKey };
    const config = runner && (await decryptConfig(keyring, runner, place, server.config));
    if (runner === undefined || config === undefined) throw undecryptable(server.name);
    return buildTarget(depth, userId, servers, runner, { ...server, serverId: server.id, config });
  }

  async function buildTarget(
    depth: number,
    userId: string,
    servers: readonly StoredServer[],
    runner: Runner,
    { serverId, version, config, hostKey, workspacePath }: ServerDraft,
  ): Promise<TargetServer> {
    const references = new Map<string, TargetServer>();
    for (const id of runner.jumpServerIds(config)) {
      // A circle ends here too.
      if (depth === MAX_JUMP_SERVERS) throw chainTooLong();
      const next = getJumpServer(servers, id);
      references.set(id, await buildStored(depth + 1, userId, servers, next));
    }
    return {
      serverId,
      owner: userOwner(userId),
      version,
      config,
      hostKey,
      workspacePath,
      jumpServers: references,
    };
  }

  return {
    fromStored: (userId, servers, server) => buildStored(0, userId, servers, server),
    fromDraft: (userId, servers, runner, draft) => buildTarget(0, userId, servers, runner, draft),
  };
}

/** The database shows a user's own servers alone: one of somebody else's is not there. */
function getJumpServer(servers: readonly StoredServer[], id: string): StoredServer {
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

function chainTooLong(): AppError {
  return new AppError(
    'validation_failed',
    `A server may go through at most ${MAX_JUMP_SERVERS} others, and not in a circle.`,
  );
}
