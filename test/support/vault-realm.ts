import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { toCheapRealm } from './cheap-realm.ts';
import { adminClient, stack } from './stack.ts';

export interface VaultRealm {
  realm: string;
  drop(): Promise<void>;
}

/**
 * Creates a copy of the shipped vault realm with the test stack's vault client and without records. An installation with
 * a new database does not start with a vault that contains keys which it cannot decrypt.
 */
export async function createVaultRealm(): Promise<VaultRealm> {
  const realm = `vault-${randomBytes(4).toString('hex')}`;
  const { secret } = stack.keycloak.vaultClient;
  const text = await readFile('keycloak/ops-center-vault-realm.json', 'utf8');
  const shipped = JSON.parse(text.replace('${KEYCLOAK_VAULT_CLIENT_SECRET}', secret)) as object;
  const admin = await adminClient();
  await admin.realms.create(toCheapRealm({ ...shipped, realm }));
  return {
    realm,
    async drop() {
      await (await adminClient()).realms.del({ realm });
    },
  };
}
