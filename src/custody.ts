import type { Config } from './config.ts';
import { createConnections, refusePending, refuseSeeingAll } from './connections.ts';
import { assertRealmFit } from './doctor/realm-check.ts';
import type { MoveDeps } from './keys/custody/move.ts';
import type { Belongings, PurgeDeps } from './keys/custody/purge.ts';
import { createEndpointCheck } from './keys/provider-choice.ts';
import { checkVaultPlace } from './keys/vault-place.ts';
import type { Database } from './lib/database.ts';
import type { Log } from './lib/log.ts';
import { getUserId } from './lib/owner.ts';
import { createRunners } from './runners/index.ts';
import { createSealedRuns } from './runs/sealed-runs.ts';
import { listRunOwners, removeRunsOf } from './runs/service.ts';
import { createServerRemoval } from './servers/removal.ts';
import { createSealedServers } from './servers/sealed-servers.ts';
import { createServerWriter } from './servers/server-writer.ts';
import { listServerOwners } from './servers/service.ts';

/** What the commands about stored keys are built of, beside whatever app is running. */
export interface Custody extends MoveDeps, PurgeDeps {
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
export function createCustody(config: Config, log: Log): Custody {
  const connections = createConnections(config, {
    // Not the app's, whose connections show that it runs.
    applicationName: 'ops-command',
    maxConnections: 4,
    keycloakTimeoutMs: LISTING_TIMEOUT_MS,
    log,
  });
  const { database, people, records, place, dialer, keyring } = connections;
  // For what they say of configurations: nothing is asked of a server.
  const runners = createRunners({ dialer, log });
  return {
    ...connections,
    checkEndpoint: createEndpointCheck({ dialer, upstreams: { overrides: config.upstreams } }),
    reader: { forget: () => undefined },
    belongings: createBelongings(database, log),
    sealedElsewhere: [
      createSealedServers({ database, keyring, runners }),
      createSealedRuns({ database, keyring }),
    ],
    log,
    async close() {
      await Promise.all([...runners.values()].map((runner) => runner.close()));
      await connections.close();
    },
    async start(isMoving = false) {
      await refusePending(database);
      await refuseSeeingAll(database);
      await assertRealmFit({ config, people, vault: records });
      if (!isMoving) await checkVaultPlace(database, place);
    },
  };
}

/** Execution servers and runs; a command holds no connections to any server. */
function createBelongings(database: Database, log: Log): Belongings {
  const writer = createServerWriter({ database, runners: new Map(), log });
  const removal = createServerRemoval({ writer });
  return {
    async listOwners() {
      const owners = await Promise.all([listServerOwners(database), listRunOwners(database)]);
      return [...new Set(owners.flat())].sort();
    },
    async remove(owner, requestId, actor) {
      await removeRunsOf(database, owner);
      await removal.removeOwner(getUserId(owner), requestId, actor);
    },
  };
}
