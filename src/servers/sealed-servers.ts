import type { Database } from '../lib/database.ts';
import type { Keyring } from '../lib/keyring.ts';
import { getUserId, type Owner } from '../lib/owner.ts';
import type { SealedTexts, SealedText } from '../lib/sealed-texts.ts';
import type { Runner, ServerType } from '../runners/runner.ts';
import { openConfig, secretsIn, type Place } from './sealing.ts';
import {
  listServerOwners,
  listServers,
  lockServers,
  replaceToken,
  type StoredServer,
} from './servers-store.ts';

export interface SealedServersDeps {
  database: Database;
  keyring: Keyring;
  runners: ReadonlyMap<ServerType, Runner>;
}

/** The secrets of all servers, one text per member of a configuration. */
export function createSealedServers({ database, keyring, runners }: SealedServersDeps): SealedTexts {
  function secretsOf(owner: Owner, server: StoredServer): SealedText[] {
    const runner = runners.get(server.serverType);
    if (runner === undefined) return [];
    const place: Place = { owner, serverId: server.id, hostKey: server.hostKey };
    return secretsIn(runner, server.config).map((field) => {
      const token = String(server.config[field]);
      return {
        owner,
        name: `server ${server.id}, ${field}`,
        token,
        isInPlace: async () => (await openConfig(keyring, runner, place, server.config)) !== undefined,
        replace: (next) =>
          database.withOwner(owner, async (sql) => {
            // A change of the server reads and writes it under this lock: it would bring the old token back.
            await lockServers(sql, getUserId(owner));
            return replaceToken(sql, server.id, { field, from: token, to: next });
          }),
      };
    });
  }

  return {
    kind: 'secrets of servers',
    async *list() {
      for (const owner of await listServerOwners(database)) {
        const servers = await database.withOwner(owner, listServers);
        for (const server of servers) yield* secretsOf(owner, server);
      }
    },
  };
}
