import { createKeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { UnfitError } from '../lib/errors.ts';
import type { Finding } from './finding.ts';
import { checkRealms, checkVault, type RealmClients, type RealmSettings } from './realm-check.ts';
import { checkWebClient, type WebClientSettings } from './web-client-check.ts';

export type { Finding } from './finding.ts';

/** Checks whether the realms of Keycloak are set up as the app needs them. */
export interface Doctor {
  /**
   * Runs the checks of every start.
   * @throws UnfitError listing what an administrator must change; AppError `keycloak_unavailable`.
   */
  assertRealmsValid(): Promise<void>;
  /** Runs the checks of every start, and that of sign-ins. @throws AppError `keycloak_unavailable`. */
  checkRealms(): Promise<Finding[]>;
  /** As {@link Doctor.checkRealms}, and reads each user of the vault realm. */
  checkRealmsInDepth(): Promise<Finding[]>;
}

/** The check of the vault realm takes longer than the Keycloak timeout of requests. */
const KEYCLOAK_TIMEOUT_MS = 30_000;

/** @param clients default: clients of its own, with a timeout that suits the slower check. */
export function createDoctor(
  settings: RealmSettings & WebClientSettings,
  clients: RealmClients = createRealmClients(settings),
): Doctor {
  /** Not made at a start: it gives only warnings, and Keycloak's first answer takes some seconds. */
  const checkSignIns = () => checkWebClient(settings, KEYCLOAK_TIMEOUT_MS);
  return {
    async assertRealmsValid() {
      const errors = (await checkRealms(settings, clients)).filter(({ level }) => level === 'error');
      if (errors.length === 0) return;
      const lines = errors.map(({ check, detail, fix }) => `  - ${check}: ${detail}\n    ${fix}`);
      throw new UnfitError(`Keycloak is not set up correctly. Change in Keycloak:\n${lines.join('\n')}`);
    },
    async checkRealms() {
      const [findings, signIns] = await Promise.all([checkRealms(settings, clients), checkSignIns()]);
      return [...findings, signIns];
    },
    async checkRealmsInDepth() {
      const [findings, signIns] = await Promise.all([checkRealms(settings, clients), checkSignIns()]);
      return [...findings, signIns, ...(await checkVault(clients, findings))];
    },
  };
}

function createRealmClients({ keycloak }: RealmSettings): RealmClients {
  const { internalUrl: baseUrl, realm, vaultRealm, service, vault } = keycloak;
  const create = (name: string, { id, secret }: { id: string; secret: string }) =>
    createKeycloakAdmin({
      ...{ baseUrl, realm: name, clientId: id, clientSecret: secret },
      timeoutMs: KEYCLOAK_TIMEOUT_MS,
    });
  return { mainAdmin: create(realm, service), vaultAdmin: create(vaultRealm, vault) };
}
