import { randomUUID } from 'node:crypto';
import { AppError } from '../lib/errors.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { userOwner } from '../lib/owner.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { getValidConfig, assertNoMasks } from './config-input.ts';
import { checkJumpChain, createListJumpServerIds, listDependents } from './jump-chain.ts';
import type { CreateServer, ServerDeleted, ServerView, UpdateServer } from './schema.ts';
import { encryptConfig } from './secret-encryption.ts';
import type { RunnerAccess } from './runner-access.ts';
import { getServer, type ServerReads } from './server-reads.ts';
import type { ServerChangeAuthor, ServerWriter } from './server-writer.ts';
import {
  clearDefault,
  deleteServer,
  insertServer,
  updateServer,
  type StoredServer,
} from './servers-store.ts';
import { changeSettings, isFirstActive } from './settings-change.ts';
import { toServerView } from './views.ts';

/** What owners change about their servers. Every change is audited. */
export interface ServerChanges {
  /**
   * Seals and stores a server. The first active one becomes the default.
   * @throws AppError `validation_failed` (400), `scope_required` (403) where this kind is not for this user;
   *   `server_limit` (409); `keycloak_unavailable`, `database_unavailable` (503).
   */
  create(author: ServerChangeAuthor, wish: CreateServer): Promise<ServerView>;
  /**
   * Merges a change. With another address the stored secrets are to be sent again, and the host key confirmed again.
   * @param ifMatch the header, as it came.
   * @throws AppError as of {@link create}, and `not_found` (404), `version_mismatch` (412), `key_undecryptable` (424).
   */
  update(
    author: ServerChangeAuthor,
    id: string,
    change: UpdateServer,
    ifMatch: string | undefined,
  ): Promise<ServerView>;
  /**
   * Deletes one, also one that others go through: those say so when they are used.
   * @throws AppError `not_found` (404), `version_mismatch` (412), `database_unavailable` (503).
   */
  remove(author: ServerChangeAuthor, id: string, ifMatch: string | undefined): Promise<ServerDeleted>;
}

export interface ServerChangesDeps {
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  kinds: RunnerAccess;
  reads: ServerReads;
  writer: ServerWriter;
}

/** By the lock under which all of an owner's changes are made. */
const MAX_SERVERS = 20;

export function createServerChanges(deps: ServerChangesDeps): ServerChanges {
  const { keyring, kinds, reads, writer } = deps;
  const referencesOf = createListJumpServerIds(deps.runners);

  return {
    async create(author, wish) {
      const runner = await kinds.getAllowedRunner(author.userId, wish.server_type);
      assertNoMasks(wish.connection_config);
      const parsed = await getValidConfig(runner, wish.connection_config);
      const id = randomUUID();
      const place = { owner: userOwner(author.userId), serverId: id, hostKey: null };
      return writer.write(author, async (hold) => {
        const { sql, servers } = hold;
        if (servers.length >= MAX_SERVERS) throw tooManyServers();
        const isActive = wish.is_active ?? true;
        const server = {
          id,
          serverType: wish.server_type,
          name: wish.name,
          config: encryptConfig(keyring, runner, place, parsed),
          workspacePath: wish.workspace_path ?? null,
          hostKey: null,
          isActive,
          isDefault: wish.is_default === true || (isActive && isFirstActive(servers)),
        };
        checkJumpChain(servers, server, referencesOf);
        await hold.recordChange('server.added', id);
        if (server.isDefault) await clearDefault(sql);
        return toServerView(await insertServer(sql, author.userId, server), runner);
      });
    },

    async update(author, id, change, ifMatch) {
      const { server_type: type } = await reads.get(author.userId, id);
      const runner = await kinds.getAllowedRunner(author.userId, type);
      return writer.write(author, async (hold) => {
        const server = getServer(hold.servers, id);
        assertVersionMatches(server, ifMatch);
        assertSameType(server, change);
        const { sql, servers } = hold;
        const around = { keyring, runner, owner: userOwner(author.userId) };
        const { settings, ...same } = await changeSettings(around, servers, server, change);
        if (!same.isSameConfig) checkJumpChain(servers, { ...server, ...settings }, referencesOf);
        await hold.recordChange('server.updated', id);
        if (settings.isDefault && !server.isDefault) await clearDefault(sql);
        return toServerView(await updateServer(sql, id, settings, same.isTestStillValid), runner);
      });
    },

    remove: (author, id, ifMatch) =>
      writer.write(author, async ({ sql, servers, recordChange: tell }) => {
        const server = getServer(servers, id);
        assertVersionMatches(server, ifMatch);
        await tell('server.deleted', id);
        await deleteServer(sql, id);
        const dependents = listDependents(servers, id, referencesOf).map(({ name }) => name);
        const left = servers.find((each) => each.isDefault && each !== server);
        return {
          message: deletionMessage(server, servers.length - 1, dependents),
          default_server_id: left?.id ?? null,
        };
      }),
  };
}

function deletionMessage(
  { name, isDefault }: StoredServer,
  left: number,
  dependents: readonly string[],
): string {
  const sentences = [`“${name}” deleted.`];
  if (isDefault && left > 0)
    sentences.push('It was the default: there is none now until you choose another.');
  if (dependents.length > 0) {
    const names = dependents.map((each) => `“${each}”`).join(', ');
    sentences.push(`What goes through it does not work until you change its connection_config: ${names}.`);
  }
  return sentences.join(' ');
}

/** `If-Match` after RFC 9110, 13.1.1: strong comparison, so that a weak tag never matches. */
function assertVersionMatches({ version }: StoredServer, ifMatch: string | undefined): void {
  if (ifMatch === undefined) return;
  const tags = ifMatch.split(',').map((tag) => tag.trim());
  if (tags.includes('*') || tags.includes(`"${version}"`)) return;
  throw new AppError(
    'version_mismatch',
    `The server was changed meanwhile: it is at version ${version} now.`,
    {
      extra: { version },
      headers: { etag: `"${version}"` },
    },
  );
}

function assertSameType(server: StoredServer, { server_type: type }: UpdateServer): void {
  if (type === undefined || type === server.serverType) return;
  const message = `stays ${server.serverType}: add another server for another kind`;
  throw new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'server_type', message }],
  });
}

function tooManyServers(): AppError {
  return new AppError(
    'server_limit',
    `You have ${MAX_SERVERS} servers, which is the most. Delete one first.`,
  );
}
