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

/** Clients for stored keys, shared by the app and the commands. */
export interface KeyClients {
  database: Database;
  /** One writer per owner; uses its own database connections. */
  lock: OwnerLock;
  /** The service client, in the user realm. */
  usersKeycloak: KeycloakAdmin;
  /** The vault client, in the vault realm. */
  vaultKeycloak: KeycloakAdmin;
  vault: Vault;
  /** The configured location. */
  vaultLocation: VaultLocation;
  keyring: Keyring;
  /** The providers available in this mode. */
  providers: readonly Provider[];
}

/** What the commands for stored keys use. */
export interface KeyAdminDeps extends KeyClients, OtherSecretsDeps {
  checkEndpoint: CheckEndpoint;
  /** The cache of this process; commands have none. */
  reader: Pick<KeyReader, 'invalidate'>;
  log: Log;
}
