import { z } from 'zod';
import type { Database } from '../lib/postgres/database.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { getUserId, OwnerText, type Owner } from '../lib/owner.ts';
import type { EncryptedTexts, EncryptedText } from '../lib/crypto/encrypted-texts.ts';
import type { Log } from '../lib/log.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { decryptConfig, listSecretFields, type SecretBinding } from './secret-encryption.ts';
import { createServerWriter } from './server-writer.ts';
import {
  deleteServer,
  listServers,
  lockServers,
  replaceSecretCiphertext,
  type StoredServer,
} from './servers-store.ts';

/** The servers of all owners, for commands and for the removal of users. No server is contacted. */
export interface ServerData {
  /** The encrypted secrets: one text per secret member of a configuration. */
  texts: EncryptedTexts;
  listOwners(): Promise<Owner[]>;
  /**
   * Deletes all servers of a user.
   * @param actor for the audit trail, which is kept.
   * @returns the number of deleted servers.
   * @throws AppError `database_unavailable` (503).
   */
  readonly removeUser: (userId: string, requestId: string, actor: string) => Promise<number>;
}

export interface ServerDataDeps {
  database: Database;
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
  log: Log;
}

const ServerOwnerRow = z.object({ owner: OwnerText });

export function createServerData(deps: ServerDataDeps, writer = createServerWriter(deps)): ServerData {
  const { database, keyring, runners } = deps;

  async function listOwners(): Promise<Owner[]> {
    const rows = await database.rows(ServerOwnerRow, 'SELECT owners_of_servers() AS owner');
    return rows.map(({ owner }) => owner);
  }

  function listSecrets(owner: Owner, server: StoredServer): EncryptedText[] {
    const runner = runners.get(server.serverType);
    if (runner === undefined) return [];
    const binding: SecretBinding = { owner, serverId: server.id, hostKey: server.hostKey };
    return listSecretFields(runner, server.config).map((field) => {
      const ciphertext = String(server.config[field]);
      return {
        owner,
        ciphertext,
        isValid: async () => (await decryptConfig(keyring, runner, binding, server.config)) !== undefined,
        replace: async (sql, next) => {
          // Changes of a server read and write its row under this lock; without it they would restore the old text.
          await lockServers(sql, getUserId(owner));
          return replaceSecretCiphertext(sql, server.id, { field, from: ciphertext, to: next });
        },
      };
    });
  }

  return {
    texts: {
      kind: 'secrets of servers',
      async *list() {
        for (const owner of await listOwners()) {
          const servers = await database.withOwner(owner, listServers);
          for (const server of servers) yield* listSecrets(owner, server);
        }
      },
    },
    listOwners,
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
