import type { Config } from '../config/config.ts';
import { createClients, assertMigrated, assertRowSecurity } from '../clients.ts';
import { createDoctor } from '../doctor/service.ts';
import type { MoveDeps, PurgeDeps } from '../keys/service.ts';
import type { Log } from '../lib/log.ts';
import { createStoredResponseData } from '../gateway/service.ts';
import { createIdempotencyData } from '../idempotency/service.ts';
import { getUserId } from '../lib/owner.ts';
import { createOnboardingData } from '../onboarding/service.ts';
import { createRunners } from '../runners/index.ts';
import { createRunData } from '../runs/service.ts';
import { createServerData } from '../servers/service.ts';
import { createTokenData } from '../tokens/service.ts';
import { createUsageData } from '../usage/service.ts';

/** What the commands for stored keys use. An app may run at the same time. */
export interface KeyAdminContext extends MoveDeps, PurgeDeps {
  /**
   * @param isMoving skips the comparison of vault locations, which differ during a move.
   * @throws UnfitError when the database or the realms are not fit, or the vault location differs.
   */
  start(isMoving?: boolean): Promise<void>;
  close(): Promise<void>;
}

/** Listing users takes longer than the Keycloak timeout of requests. */
const LISTING_TIMEOUT_MS = 30_000;

/** For commands what `createContext` is for the app. Nothing is connected before `start`. */
export function createKeyAdminContext(config: Config, log: Log): KeyAdminContext {
  const clients = createClients(config, {
    // Not the app's name: connections with that name show that the app runs.
    applicationName: 'ops-command',
    maxConnections: 4,
    keycloakTimeoutMs: LISTING_TIMEOUT_MS,
    log,
  });
  const { database, usersKeycloak, vaultKeycloak, dialer, keyring } = clients;
  // Only for the parsing of server configurations: no server is contacted.
  const runners = createRunners({ dialer, log });
  const servers = createServerData({ database, keyring, runners, log });
  const runs = createRunData({ database, keyring });
  const tokens = createTokenData({ database });
  const usage = createUsageData(database);
  const responses = createStoredResponseData(database);
  const idempotency = createIdempotencyData(database);
  const onboarding = createOnboardingData(database);
  return {
    ...clients,
    upstreams: { overrides: config.upstreams },
    ownerData: {
      async listOwners() {
        const owners = await Promise.all(
          [servers, runs, tokens, usage, responses, idempotency, onboarding].map((data) => data.listOwners()),
        );
        return [...new Set(owners.flat())].sort();
      },
      async remove(owner, requestId, actor) {
        await tokens.remove(owner, requestId, actor);
        await runs.remove(owner);
        await usage.remove(owner);
        await responses.removeAll(owner);
        await idempotency.removeAll(owner);
        await onboarding.remove(owner);
        await servers.removeUser(getUserId(owner), requestId, actor);
      },
    },
    otherSecrets: [servers.texts, runs.texts],
    log,
    async close() {
      await Promise.all([...runners.values()].map((runner) => runner.close()));
      await clients.close();
    },
    async start(isMoving = false) {
      await assertMigrated(database);
      await assertRowSecurity(database);
      await createDoctor(config, { mainAdmin: usersKeycloak, vaultAdmin: vaultKeycloak }).assertRealmsValid();
      if (!isMoving) await clients.assertVaultLocation();
    },
  };
}
