import type { Database } from '../../lib/postgres/database.ts';
import type { KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Log } from '../../lib/log.ts';
import type { Provider } from '../../providers/provider.ts';
import type { KeyReader } from '../key-reader.ts';
import type { OwnerLock } from '../owner-lock.ts';
import type { CheckEndpoint } from '../provider-lookup.ts';
import type { VaultLocation } from '../vault-location.ts';
import type { Vault } from '../vault.ts';
import type { OtherSecretsDeps } from './other-secrets.ts';

/** What stored keys lie in and are reached with, by the app as by the commands. */
export interface KeyClients {
  database: Database;
  /** One writer per owner; on connections of its own. */
  lock: OwnerLock;
  /** The service client, in the realm of the people. */
  usersKeycloak: KeycloakAdmin;
  /** The vault client, in the realm of the records. */
  vaultKeycloak: KeycloakAdmin;
  vault: Vault;
  /** Where the configuration says that the records lie. */
  vaultLocation: VaultLocation;
  keyring: Keyring;
  /** The providers on offer in this mode. */
  providers: readonly Provider[];
}

/** What the commands about stored keys work with. */
export interface KeyAdminDeps extends KeyClients, OtherSecretsDeps {
  checkEndpoint: CheckEndpoint;
  /** What this process remembers of owners: commands remember nothing. */
  reader: Pick<KeyReader, 'invalidate'>;
  log: Log;
}
