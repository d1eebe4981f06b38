import { stack } from '../support/stack.ts';
import { randomEncryptionKey, type InstanceOptions } from './instance.ts';

/** Options for instances on this database, with a new keyring and vault records in the vault realm of the tests. */
export function createInstanceOptions(databaseUrl: string): InstanceOptions {
  return {
    databaseUrl,
    keycloakUrl: stack.keycloak.url,
    realm: stack.keycloak.vaultRealm,
    client: stack.keycloak.vaultClient,
    encryptionKeys: [randomEncryptionKey()],
  };
}
