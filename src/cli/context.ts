import type { Config } from '../config/config.ts';
import { createClients, assertMigrated, assertRowSecurity } from '../clients.ts';
import { assertRealmsValid } from '../doctor/realm-check.ts';
import type { MoveDeps } from '../keys/admin/move.ts';
import type { OwnerData, PurgeDeps } from '../keys/admin/purge.ts';
import { createEndpointCheck } from '../keys/provider-lookup.ts';
import { assertVaultLocation } from '../keys/vault-location.ts';
import type { Database } from '../lib/postgres/database.ts';
import type { Log } from '../lib/log.ts';
import { getUserId } from '../lib/owner.ts';
import { createRunners } from '../runners/index.ts';
import { createEncryptedRuns } from '../runs/encrypted-runs.ts';
import { listRunOwners, deleteRunsOfOwner } from '../runs/service.ts';
import { createServerRemoval } from '../servers/removal.ts';
import { createEncryptedServers } from '../servers/encrypted-servers.ts';
import { createServerWriter } from '../servers/server-writer.ts';
import { listServerOwners } from '../servers/service.ts';

/** What the commands about stored keys are built of, beside whatever app is running. */
export interface KeyAdminContext extends MoveDeps, PurgeDeps {
  /**
   * @param isMoving leaves out the comparison of places, since they are to differ.
   * @throws UnfitError when the database or the realms are not fit, or the vault is in another place.
   */
  start(isMoving?: boolean): Promise<void>;
  close(): Promise<void>;
}

/** A list of users takes longer than a single call of a request may. */
const LISTING_TIMEOUT_MS = 30_000;

/** Builds what the commands need, as `createContext` does for the app; nothing is connected before `start`. */
export function createKeyAdminContext(config: Config, log: Log): KeyAdminContext {
  const connections = createClients(config, {
    // Not the app's, whose connections show that it runs.
    applicationName: 'ops-command',
    maxConnections: 4,
    keycloakTimeoutMs: LISTING_TIMEOUT_MS,
    log,
  });
  const {
    database,
    usersKeycloak: people,
    vaultKeycloak: records,
    vaultLocation: place,
    dialer,
    keyring,
  } = connections;
  // For what they say of configurations: nothing is asked of a server.
  const runners = createRunners({ dialer, log });
  return {
    ...connections,
    checkEndpoint: createEndpointCheck({ dialer, upstreams: { overrides: config.upstreams } }),
    reader: { invalidate: () => undefined },
    ownerData: createOwnerData(database, log),
    otherSecrets: [
      createEncryptedServers({ database, keyring, runners }),
      createEncryptedRuns({ database, keyring }),
    ],
    log,
    async close() {
      await Promise.all([...runners.values()].map((runner) => runner.close()));
      await connections.close();
    },
    async start(isMoving = false) {
      await assertMigrated(database);
      await assertRowSecurity(database);
      await assertRealmsValid({ config, mainAdmin: people, vaultAdmin: records });
      if (!isMoving) await assertVaultLocation(database, place);
    },
  };
}

/** Execution servers and runs; a command holds no connections to any server. */
function createOwnerData(database: Database, log: Log): OwnerData {
  const writer = createServerWriter({ database, runners: new Map(), log });
  const removal = createServerRemoval({ writer });
  return {
    async listOwners() {
      const owners = await Promise.all([listServerOwners(database), listRunOwners(database)]);
      return [...new Set(owners.flat())].sort();
    },
    async remove(owner, requestId, actor) {
      await deleteRunsOfOwner(database, owner);
      await removal.removeOwner(getUserId(owner), requestId, actor);
    },
  };
}
