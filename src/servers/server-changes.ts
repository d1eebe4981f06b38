import { assertVersionMatches } from '../http/versions.ts';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { getValidConfig, assertNoMasks } from './config-input.ts';
import { checkJumpChain, createListJumpServerIds, listDependents } from './jump-chain.ts';
import type { CreateServer, ServerDeleted, ServerView, UpdateServer } from './schema.ts';
import { encryptConfig } from './secret-encryption.ts';
import type { RunnerAccess } from './open-server.ts';
import type { ServerReads } from './server-reads.ts';
import type { ServerChangeAuthor, ServerWriter } from './server-writer.ts';
import {
  getServer,
  clearDefault,
  deleteServer,
  insertServer,
  updateServer,
  type StoredServer,
} from './servers-store.ts';
import { changeSettings, isFirstActive } from './settings-change.ts';
import { toServerView } from './views.ts';

/** Changes of servers by their owners. Every change is audited. */
export interface ServerChanges {
  /**
   * Encrypts the secrets of a server and stores it. The first active server becomes the default.
   * @throws AppError `validation_failed` (400), `scope_required` (403) when the user may not use this server type;
   *   `server_limit` (409); `keycloak_unavailable`, `database_unavailable` (503).
   */
  create(author: ServerChangeAuthor, input: CreateServer, id: string): Promise<ServerView>;
  /**
   * Merges a change. If the address changes, the secrets must be sent again and the host key confirmed again.
   * @param ifMatch the `If-Match` header.
   * @throws AppError as {@link create}, and `not_found` (404), `version_mismatch` (412), `key_undecryptable` (424).
   */
  update(
    author: ServerChangeAuthor,
    id: string,
    change: UpdateServer,
    ifMatch: string | undefined,
  ): Promise<ServerView>;
  /**
   * Deletes a server, also a jump server of others. Those answer `not_found` when they are used.
   * @throws AppError `not_found` (404), `version_mismatch` (412), `database_unavailable` (503).
   */
  remove(author: ServerChangeAuthor, id: string, ifMatch: string | undefined): Promise<ServerDeleted>;
}

export interface ServerChangesDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  runnerAccess: RunnerAccess;
  reads: ServerReads;
  writer: ServerWriter;
}

/** Exact, because all changes of an owner's servers are made under one lock. */
const MAX_SERVERS = 20;

export function createServerChanges(deps: ServerChangesDeps): ServerChanges {
  const { keyring, runnerAccess, reads, writer } = deps;
  const listJumpServerIds = createListJumpServerIds(deps.runners);

  return {
    async create(author, input, id) {
      const runner = await runnerAccess.getAllowedRunner(author.userId, input.server_type);
      assertNoMasks(input.connection_config);
      const parsed = await getValidConfig(runner, input.connection_config);
      const binding = { owner: userOwner(author.userId), serverId: id, hostKey: null };
      return writer.write(author, async (transaction) => {
        const { sql, servers } = transaction;
        if (servers.length >= MAX_SERVERS) throw tooManyServers();
        const isActive = input.is_active ?? true;
        const server = {
          id,
          serverType: input.server_type,
          name: input.name,
          config: encryptConfig(keyring, runner, binding, parsed),
          workspacePath: input.workspace_path ?? null,
          hostKey: null,
          isActive,
          tokenRuns: input.token_runs ?? false,
          isDefault: input.is_default === true || (isActive && isFirstActive(servers)),
        };
        checkJumpChain(servers, server, listJumpServerIds);
        await transaction.recordChange('server.added', id);
        if (server.isDefault) await clearDefault(sql);
        return toServerView(await insertServer(sql, author.userId, server), runner);
      });
    },

    async update(author, id, change, ifMatch) {
      const { server_type: type } = await reads.get(author.userId, id);
      const runner = await runnerAccess.getAllowedRunner(author.userId, type);
      return writer.write(author, async (transaction) => {
        const server = getServer(transaction.servers, id);
        assertVersionMatches('server', server.version, ifMatch);
        assertSameType(server, change);
        const { sql, servers } = transaction;
        const context = { keyring, runner, owner: userOwner(author.userId) };
        const { settings, ...unchanged } = await changeSettings(context, servers, server, change);
        if (!unchanged.isSameConfig) checkJumpChain(servers, { ...server, ...settings }, listJumpServerIds);
        await transaction.recordChange('server.updated', id);
        if (settings.isDefault && !server.isDefault) await clearDefault(sql);
        return toServerView(await updateServer(sql, id, settings, unchanged.isTestStillValid), runner);
      });
    },

    remove: (author, id, ifMatch) =>
      writer.write(author, async ({ sql, servers, recordChange }) => {
        const server = getServer(servers, id);
        assertVersionMatches('server', server.version, ifMatch);
        await recordChange('server.deleted', id);
        await deleteServer(sql, id);
        const dependents = listDependents(servers, id, listJumpServerIds).map(({ name }) => name);
        const newDefault = servers.find((each) => each.isDefault && each !== server);
        return {
          message: deletionMessage(server, servers.length - 1, dependents),
          default_server_id: newDefault?.id ?? null,
        };
      }),
  };
}

function deletionMessage(
  { name, isDefault }: StoredServer,
  remaining: number,
  dependents: readonly string[],
): string {
  const sentences = [`“${name}” deleted.`];
  if (isDefault && remaining > 0)
    sentences.push('It was the default. You have no default server until you choose one.');
  if (dependents.length > 0) {
    const dependentNames = dependents.map((each) => `“${each}”`).join(', ');
    sentences.push(
      `These servers connect through it and fail until you change their connection_config: ${dependentNames}.`,
    );
  }
  return sentences.join(' ');
}

function assertSameType(server: StoredServer, { server_type: type }: UpdateServer): void {
  if (type === undefined || type === server.serverType) return;
  const message = `cannot change from ${server.serverType}; add another server for another type`;
  throw new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'server_type', message }],
  });
}

function tooManyServers(): AppError {
  return new AppError(
    'server_limit',
    `You have ${MAX_SERVERS} servers, which is the maximum. Delete one first.`,
  );
}
