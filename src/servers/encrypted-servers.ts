import { z } from 'zod';
import type { Database } from '../lib/postgres/database.ts';
import type { Keyring } from '../lib/crypto/keyring.ts';
import { getUserId, OwnerText, type Owner } from '../lib/owner.ts';
import type { EncryptedTexts, EncryptedText } from '../lib/crypto/encrypted-texts.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { decryptConfig, listSecretFields, type SecretBinding } from './secret-encryption.ts';
import { listServers, lockServers, replaceSecretCiphertext, type StoredServer } from './servers-store.ts';

export interface EncryptedServersDeps {
  database: Database;
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
}

const ServerOwnerRow = z.object({ owner: OwnerText });

/** All owners of servers, for commands that process them one owner at a time. */
export async function listServerOwners(database: Database): Promise<Owner[]> {
  const rows = await database.rows(ServerOwnerRow, 'SELECT owners_of_servers() AS owner');
  return rows.map(({ owner }) => owner);
}

/** The encrypted secrets of all servers: one text per secret member of a configuration. */
export function createEncryptedServers({ database, keyring, runners }: EncryptedServersDeps): EncryptedTexts {
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
    kind: 'secrets of servers',
    async *list() {
      for (const owner of await listServerOwners(database)) {
        const servers = await database.withOwner(owner, listServers);
        for (const server of servers) yield* listSecrets(owner, server);
      }
    },
  };
}
