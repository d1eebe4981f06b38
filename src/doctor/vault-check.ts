import type { KeycloakAdmin } from '../lib/keycloak-admin.ts';
import { error, ok, type Finding } from './finding.ts';

const PAGE = 100;

/**
 * Looks at every user of a vault realm of its own: records are disabled and have no credentials, so an
 * enabled user, or one with a password, is somebody who could sign in there.
 */
export async function checkVaultUsers(vault: KeycloakAdmin): Promise<Finding[]> {
  const check = `users of the vault realm ${vault.realm}`;
  const enabled: string[] = [];
  const credentialed: string[] = [];
  let count = 0;
  for (let first = 0; ; first += PAGE) {
    const page = await vault.call((client) =>
      client.users.find({ realm: vault.realm, first, max: PAGE, briefRepresentation: true }),
    );
    for (const { id = '', username = '', enabled: isEnabled } of page) {
      if (isServiceAccount(username)) continue;
      count += 1;
      if (isEnabled === true) enabled.push(username);
      const credentials = await vault.call((client) =>
        client.users.getCredentials({ realm: vault.realm, id }),
      );
      if (credentials.length > 0) credentialed.push(username);
    }
    if (page.length < PAGE) break;
  }
  if (enabled.length + credentialed.length === 0) return [ok(check, `${count} records, none can sign in`)];
  return [
    ...complaint(check, 'enabled', enabled, 'disable or delete'),
    ...complaint(check, 'have credentials', credentialed, 'delete the credentials of'),
  ];
}

function complaint(check: string, what: string, names: string[], action: string): Finding[] {
  if (names.length === 0) return [];
  return [error(check, `${what}: ${names.join(', ')}`, `Users: ${action} ${names.join(', ')}`)];
}

function isServiceAccount(username: string): boolean {
  return username.startsWith('service-account-');
}
