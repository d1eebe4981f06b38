import type { KeycloakAdmin } from '../lib/keycloak/keycloak-admin.ts';
import { readDemo } from './demo-users.ts';
import { error, ok, type Finding } from './finding.ts';

/** Reports demo users, because their password is public. */
export async function checkDemoUsers(admin: KeycloakAdmin): Promise<Finding[]> {
  const check = `demo users in realm ${admin.realm}`;
  const { users } = await readDemo();
  const present = await Promise.all(
    users.map(async ({ username, email }) => {
      const found = await admin.call((client) =>
        client.users.find({ realm: admin.realm, username, email, exact: true, briefRepresentation: true }),
      );
      return found.length > 0 ? [username] : [];
    }),
  );
  const names = present.flat();
  if (names.length === 0) return [ok(check, 'none')];
  return [
    error(
      check,
      `${names.join(', ')} can sign in with a public password`,
      `Users: delete ${names.join(', ')}`,
    ),
  ];
}
