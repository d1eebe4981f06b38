import type { Database } from '../../lib/postgres/database.ts';
import type { KeycloakAdmin } from '../../lib/keycloak/keycloak-admin.ts';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Log } from '../../lib/log.ts';
import type { Dialer } from '../../lib/net/dialer.ts';
import type { OperatorUpstreams } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';
import type { OwnerLock } from '../owner-lock.ts';
import type { VaultLocation } from '../vault-location.ts';
import type { Vault } from '../vault.ts';
import type { OtherSecretsDeps } from './other-secrets.ts';

/** What the commands for stored keys use. They have no cache of pools. */
export interface KeyAdminDeps extends OtherSecretsDeps {
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
  dialer: Pick<Dialer, 'checkEndpoint'>;
  upstreams: OperatorUpstreams;
  log: Log;
}
