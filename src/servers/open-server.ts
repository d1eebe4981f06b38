import type { LocalExecution } from '../identity/service.ts';
import type { Database } from '../lib/postgres/database.ts';
import { AppError, notFound, operatorRoleRequired } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import type { Log } from '../lib/log.ts';
import type { HostKey } from '../lib/ssh/host-key.ts';
import { userOwner } from '../lib/owner.ts';
import {
  LIMIT_NAMES,
  type Limits,
  type Runner,
  type ServerType,
  type TargetServer,
} from '../runners/runner.ts';
import {
  getDefaultServer,
  getServer,
  listServers,
  saveServerUse,
  type StoredServer,
} from './servers-store.ts';
import { MAX_JUMP_SERVERS } from './jump-chain.ts';
import { decryptConfig } from './secret-encryption.ts';

/** The runners of this installation, and which users may use them. */
export interface RunnerAccess {
  /** The runner of a server type, without a check of rights; undefined when the type is not built in. */
  findRunner(type: ServerType): Runner | undefined;
  /**
   * The runner of a server type, for a user.
   * @throws AppError `validation_failed` (400) when the type is not available on this installation, `scope_required`
   *   (403) when the user may not use it; `keycloak_unavailable` (503).
   */
  getAllowedRunner(userId: string, type: ServerType): Promise<Runner>;
}

export interface RunnerAccessDeps {
  runners: ReadonlyMap<ServerType, Runner>;
  localExecution: LocalExecution;
}

export function createRunnerAccess({ runners, localExecution }: RunnerAccessDeps): RunnerAccess {
  return {
    findRunner: (type) => runners.get(type),
    async getAllowedRunner(userId, type) {
      const runner = runners.get(type);
      if (runner === undefined || (type === 'local' && !localExecution.isOn)) throw typeUnavailable(type);
      if (type === 'local' && !(await localExecution.isAllowed(userId))) throw operatorRoleRequired();
      return runner;
    },
  };
}

/** A server that may run code now: one snapshot with decrypted secrets. */
export interface OpenServer {
  id: string;
  name: string;
  serverType: ServerType;
  /** Whether personal tokens may run code on it. */
  tokenRuns: boolean;
  /** Kept as long as the run. Never logged, never stored. */
  target: TargetServer;
  runner: Runner;
}

/** A server on which the remains of a run are cleaned up. */
interface CleanupServer {
  target: TargetServer;
  /** Cannot start a run. */
  runner: Pick<Runner, 'cleanUp'>;
}

/** Opens servers for runs. */
export interface ServerOpener {
  /**
   * Opens a server of a user for one run. The caller has checked the user's tier.
   * @param ref the server's id, or `default`.
   * @throws AppError `not_found` (404), also for another owner's server and for a missing jump server;
   *   `no_default_server` (404); `server_paused`, `host_key_unconfirmed` (409), also for its jump servers;
   *   `validation_failed` (400), `scope_required` (403) when this server type is not available; `limit_unsupported`
   *   (422) naming the limits that the server cannot enforce; `key_undecryptable` (424); `keycloak_unavailable`,
   *   `database_unavailable` (503).
   */
  openForRun(userId: string, ref: string, limits: Limits): Promise<OpenServer>;
  /**
   * Opens a server of a user to clean up a run there. Paused servers and jump servers are opened too, because nothing
   * of a run may be left on a paused server.
   * @throws AppError as {@link openForRun}, but never `server_paused`.
   */
  openForCleanup(userId: string, id: string): Promise<CleanupServer>;
  /** Ids of the user's servers on which personal tokens may run code. */
  listTokenServerIds(userId: string): Promise<ReadonlySet<string>>;
  /** Stores and logs the use of a server. @throws AppError `database_unavailable` (503). */
  recordUse(userId: string, server: Pick<OpenServer, 'id' | 'name'>): Promise<void>;
}

export interface ServerOpenerDeps {
  database: Database;
  runners: ReadonlyMap<ServerType, Runner>;
  runnerAccess: RunnerAccess;
  targetBuilder: TargetBuilder;
  log: Log;
}

export function createServerOpener({
  database,
  runners,
  runnerAccess,
  targetBuilder,
  log,
}: ServerOpenerDeps): ServerOpener {
  const serversOf = (userId: string) => database.withOwner(userOwner(userId), listServers);

  async function open(userId: string, ref: string, servers: readonly StoredServer[]): Promise<OpenServer> {
    const server = ref === 'default' ? getDefaultServer(servers) : getServer(servers, ref);
    const { id, name, serverType, tokenRuns } = server;
    if (!server.isActive) throw new AppError('server_paused', `“${name}” is paused. Switch it on first.`);
    const runner = await runnerAccess.getAllowedRunner(userId, serverType);
    const target = await targetBuilder.fromStored(userId, servers, server);
    assertHostKeysConfirmed(target, servers, runners);
    return { id, name, serverType, tokenRuns, target, runner };
  }

  return {
    async openForRun(userId, ref, limits) {
      const server = await open(userId, ref, await serversOf(userId));
      assertLimitsSupported(server, limits);
      return server;
    },
    async openForCleanup(userId, id) {
      const servers = (await serversOf(userId)).map((server) => ({ ...server, isActive: true }));
      return open(userId, id, servers);
    },
    async listTokenServerIds(userId) {
      const servers = await serversOf(userId);
      return new Set(servers.filter(({ tokenRuns }) => tokenRuns).map(({ id }) => id));
    },
    async recordUse(userId, { id, name }) {
      await database.withOwner(userOwner(userId), (sql) => saveServerUse(sql, id));
      log.info({ event: 'execution_server_used', user: userId, id, name }, 'an execution server is used');
    },
  };
}

function assertLimitsSupported({ runner, target, name }: OpenServer, limits: Limits): void {
  const names = runner.unenforceableLimits(target.config, limits).map((limit) => LIMIT_NAMES[limit]);
  if (names.length > 0)
    throw limitUnsupported(
      `${name} cannot enforce ${names.join(', ')}. Leave it out.`,
      names.map((limit) => [limit, 'cannot be enforced on this server']),
    );
  const exceeded = listExceededLimits(runner.maxLimits ?? {}, limits);
  if (exceeded.length === 0) return;
  const allowed = exceeded.map(({ wireName, max }) => `${wireName} up to ${max}`).join(', ');
  throw limitUnsupported(
    `The operator allows ${allowed} on ${name}. Request less.`,
    exceeded.map(({ wireName, max }) => [wireName, `must be at most ${max}`]),
  );
}

/** 422. @param issues wire names of limits, each with what is wrong. */
function limitUnsupported(
  detail: string,
  issues: readonly (readonly [limit: string, message: string])[],
): AppError {
  const errors = issues.map(([limit, message]) => ({ path: `limits.${limit}`, message }));
  return new AppError('limit_unsupported', detail, { errors });
}

function listExceededLimits(maxLimits: NonNullable<Runner['maxLimits']>, limits: Limits) {
  return (['memoryBytes', 'cpus', 'pids'] as const).flatMap((limit) => {
    const max = maxLimits[limit] ?? null;
    const requested = limits[limit];
    return max !== null && requested !== null && requested > max
      ? [{ wireName: LIMIT_NAMES[limit], max }]
      : [];
  });
}

/** @param servers the stored servers of the target and of its jump servers. */
function assertHostKeysConfirmed(
  { serverId, hostKey, jumpServers }: TargetServer,
  servers: readonly StoredServer[],
  runners: ReadonlyMap<ServerType, Runner>,
): void {
  const { id, name, serverType } = getServer(servers, serverId);
  if (hostKey === null && runners.get(serverType)?.needsHostKey === true)
    throw new AppError(
      'host_key_unconfirmed',
      `The host key of “${name}” is not confirmed. Test the server, compare the fingerprint and confirm it.`,
      { extra: { server_id: id } },
    );
  for (const jump of jumpServers.values()) assertHostKeysConfirmed(jump, servers, runners);
}

function typeUnavailable(type: ServerType): AppError {
  const message =
    type === 'local'
      ? 'Server type local is not available, because LOCAL_EXECUTION is off. Use another server type, or ask the operator to switch it on.'
      : `Server type ${type} is not available on this installation.`;
  return new AppError('validation_failed', message, { errors: [{ path: 'server_type', message }] });
}

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

export function createTargetBuilder(
  keyring: Keyring,
  runners: ReadonlyMap<ServerType, Runner>,
): TargetBuilder {
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
    return { serverId, owner: userOwner(userId), version, config, hostKey, workspacePath, jumpServers };
  }

  return {
    fromStored: (userId, servers, server) => buildStored(0, userId, servers, server),
    fromDraft: (userId, servers, runner, draft) => buildTarget(0, userId, servers, runner, draft),
  };
}

/** `servers` contains the user's own servers only, so that another user's server is not found. */
function getJumpServer(servers: readonly StoredServer[], id: string): StoredServer {
  const jump = servers.find((each) => each.id === id && each.serverType === 'ssh');
  if (jump === undefined) throw notFound('The SSH server that this server connects through');
  if (jump.isActive) return jump;
  throw new AppError(
    'server_paused',
    `This server connects through “${jump.name}”, which is paused. Switch that one on first.`,
  );
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
