import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { createError, createOk, type Finding } from './finding.ts';

const PAGE_SIZE = 100;

/**
 * Checks every user of a separate vault realm. Vault records are disabled users without credentials; an enabled
 * user, or one with a password, could sign in.
 */
export async function checkVaultUsers(vault: KeycloakAdmin): Promise<Finding[]> {
  const check = `users of the vault realm ${vault.realm}`;
  const enabled: string[] = [];
  const withCredentials: string[] = [];
  let count = 0;
  for (let first = 0; ; first += PAGE_SIZE) {
    const page = await vault.call((client) =>
      client.users.find({ realm: vault.realm, first, max: PAGE_SIZE, briefRepresentation: true }),
    );
    for (const { id = '', username = '', enabled: isEnabled } of page) {
      if (isServiceAccount(username)) continue;
      count += 1;
      if (isEnabled === true) enabled.push(username);
      const credentials = await vault.call((client) =>
        client.users.getCredentials({ realm: vault.realm, id }),
      );
      if (credentials.length > 0) withCredentials.push(username);
    }
    if (page.length < PAGE_SIZE) break;
  }
  if (enabled.length + withCredentials.length === 0)
    return [createOk(check, `${count} vault records, none can sign in`)];
  return [
    ...toFindings(check, 'enabled', enabled, 'disable or delete'),
    ...toFindings(check, 'have credentials', withCredentials, 'delete the credentials of'),
  ];
}

function toFindings(check: string, problem: string, names: string[], action: string): Finding[] {
  if (names.length === 0) return [];
  return [createError(check, `${problem}: ${names.join(', ')}`, `Users: ${action} ${names.join(', ')}`)];
}

function isServiceAccount(username: string): boolean {
  return username.startsWith('service-account-');
}
