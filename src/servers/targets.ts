import { AppError, notFound } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import type { Runner, ServerType, TargetServer } from '../runners/runner.ts';
import { decryptConfig } from './secret-encryption.ts';
import type { StoredServer } from './servers-store.ts';

/** Maximum number of jump servers between this installation and the server that runs the code. */
export const MAX_JUMP_SERVERS = 3;

/** A decrypted configuration, stored or not, with the settings that a target needs. */
export interface ServerDraft {
  serverId: string;
  version: number;
  config: unknown;
  hostKey: HostKey | null;
  workspacePath: string | null;
}

/** Builds the targets of servers, with the targets of their jump servers. */
export interface TargetBuilder {
  /**
   * The target of a stored server.
   * @param servers all servers of the user, from one query.
   * @throws AppError `key_undecryptable` (424) when stored secrets of the server or of a jump server do not decrypt or
   *   are bound to another destination; `not_found` (404) and `server_paused` (409) for a jump server;
   *   `validation_failed` (400) for a jump chain that is too long.
   */
  fromStored(userId: string, servers: readonly StoredServer[], server: StoredServer): Promise<TargetServer>;
  /** The target of a configuration that is not stored. @throws AppError as {@link fromStored}. */
  fromDraft(
    userId: string,
    servers: readonly StoredServer[],
    runner: Runner,
    draft: ServerDraft,
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
    const binding = { owner: userOwner(userId), serverId: server.id, hostKey: server.hostKey };
    const config = runner && (await decryptConfig(keyring, runner, binding, server.config));
    if (runner === undefined || config === undefined) throw secretsUndecryptable(server.name);
    return buildTarget(depth, userId, servers, runner, { ...server, serverId: server.id, config });
  }

  async function buildTarget(
    depth: number,
    userId: string,
    servers: readonly StoredServer[],
    runner: Runner,
    { serverId, version, config, hostKey, workspacePath }: ServerDraft,
  ): Promise<TargetServer> {
    const jumpServers = new Map<string, TargetServer>();
    for (const id of runner.jumpServerIds(config)) {
      // Also ends a circle.
      if (depth === MAX_JUMP_SERVERS) throw chainTooLong();
      const next = getJumpServer(servers, id);
      jumpServers.set(id, await buildStored(depth + 1, userId, servers, next));
    }
    return {
      serverId,
      owner: userOwner(userId),
      version,
      config,
      hostKey,
      workspacePath,
      jumpServers,
    };
  }

  return {
    fromStored: (userId, servers, server) => buildStored(0, userId, servers, server),
    fromDraft: (userId, servers, runner, draft) => buildTarget(0, userId, servers, runner, draft),
  };
}

/** `servers` contains the user's own servers only, so that another user's server is not found. */
function getJumpServer(servers: readonly StoredServer[], id: string): StoredServer {
  const jump = servers.find((each) => each.id === id && each.serverType === 'ssh');
  if (jump === undefined) {
    throw notFound('The SSH server that this server connects through');
  }
  if (!jump.isActive) {
    throw new AppError(
      'server_paused',
      `This server connects through “${jump.name}”, which is paused. Switch that one on first.`,
    );
  }
  return jump;
}

/** 424: the same error for a wrong key, an altered ciphertext and another destination. */
export function secretsUndecryptable(name: string): AppError {
  return new AppError(
    'key_undecryptable',
    `The stored secrets of “${name}” do not decrypt, or were stored for another address. Enter its connection_config again.`,
  );
}

function chainTooLong(): AppError {
  return new AppError(
    'validation_failed',
    `A server may have at most ${MAX_JUMP_SERVERS} jump servers, and no circle of them.`,
  );
}
