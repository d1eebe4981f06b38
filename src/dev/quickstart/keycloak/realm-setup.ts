import KcAdminClient, { NetworkError } from '@keycloak/keycloak-admin-client';
import type { Demo } from '../../../lib/keycloak/demo-users.ts';
import { BOOTSTRAP_ADMIN } from './keycloak.ts';
import { StartError } from '../../../lib/errors.ts';

/**
 * Signs in as the admin that Keycloak created on its first start.
 * @param passwordSource where the password was read from, for the error message.
 * @throws StartError if Keycloak refuses the password.
 */
export async function signInAsBootstrapAdmin(
  baseUrl: string,
  password: string,
  passwordSource = 'DATA_DIR/secrets/keycloak-admin',
): Promise<KcAdminClient> {
  const admin = new KcAdminClient({ baseUrl, realmName: 'master', timeout: 30_000 });
  try {
    await admin.auth({ grantType: 'password', clientId: 'admin-cli', username: BOOTSTRAP_ADMIN, password });
  } catch (error) {
    if (!isRefused(error)) throw error;
    throw new StartError(
      `Keycloak refuses the password in ${passwordSource} for its user "${BOOTSTRAP_ADMIN}". If you changed it in the console, write the new password to ${passwordSource}.`,
    );
  }
  return admin;
}

/** Sets the current addresses of the app in its web client: a start can choose another port. */
export async function setWebClientAddresses(
  admin: KcAdminClient,
  realm: string,
  addresses: { clientId: string; publicUrl: string; internalUrl: string },
): Promise<void> {
  const [client] = await admin.clients.find({ realm, clientId: addresses.clientId });
  if (client?.id === undefined)
    throw new StartError(`The realm ${realm} has no client ${addresses.clientId}.`);
  await admin.clients.update(
    { realm, id: client.id },
    { ...client, ...webClientAddresses(client.attributes, addresses.publicUrl, addresses.internalUrl) },
  );
}

/** Properties of a web client that depend on the app's address. */
export function webClientAddresses(
  attributes: Record<string, unknown> | undefined,
  publicUrl: string,
  internalUrl: string,
) {
  return {
    rootUrl: publicUrl,
    redirectUris: [`${publicUrl}/auth/callback`],
    attributes: {
      ...attributes,
      'post.logout.redirect.uris': `${publicUrl}/`,
      'backchannel.logout.url': `${internalUrl}/auth/backchannel-logout`,
    },
  };
}

/** Adds the demo users and their organization. Existing ones are not changed. */
export async function addDemoData(admin: KcAdminClient, realm: string, demo: Demo): Promise<void> {
  await admin.realms.partialImport({
    realm,
    rep: { ifResourceExists: 'SKIP', users: demo.users },
  });
  for (const { members, ...organization } of demo.organizations) {
    const id = await ensureOrganization(admin, realm, organization);
    for (const { username } of members) {
      const [user] = await admin.users.find({ realm, username, exact: true, briefRepresentation: true });
      if (user?.id === undefined) continue;
      await admin.organizations.addMember({ realm, orgId: id, userId: user.id }).catch((error: unknown) => {
        if (readStatus(error) !== 409) throw error;
      });
    }
  }
}

async function ensureOrganization(
  admin: KcAdminClient,
  realm: string,
  organization: { name: string; alias: string },
): Promise<string> {
  const found = await admin.organizations.find({ realm, search: organization.name, exact: true });
  const existing = found.find((candidate) => candidate.alias === organization.alias)?.id;
  if (existing !== undefined) return existing;
  const created = await admin.organizations.create({ realm, ...organization });
  return created.id;
}

/** Keycloak's response to a wrong user or password (RFC 6749, 5.2; older versions answer 401). */
function isRefused(error: unknown): boolean {
  return (
    readStatus(error) === 401 || (readStatus(error) === 400 && (error as Error).message === 'invalid_grant')
  );
}

function readStatus(error: unknown): number | undefined {
  return error instanceof NetworkError ? error.response.status : undefined;
}
