import { createHash, randomBytes } from 'node:crypto';
import { createKeycloakFetch } from '../lib/keycloak/keycloak-fetch.ts';
import { createOk, createWarning, type Finding } from './finding.ts';

export interface WebClientSettings {
  publicUrl: string;
  keycloak: { internalUrl: string; realm: string; web: { id: string } };
}

/**
 * Checks that the ID tokens of the web client contain `auth_time`, which Keycloak adds through the client scope `basic`.
 * The service client may not read clients. So the check begins a sign-in that shows no page (`prompt=none`) and names the
 * scope: Keycloak refuses it as `invalid_scope` when the client does not have it, and as `login_required` otherwise.
 * @throws AppError `keycloak_unavailable`.
 */
export async function checkWebClient(
  { publicUrl, keycloak }: WebClientSettings,
  timeoutMs: number,
): Promise<Finding> {
  const { internalUrl, realm, web } = keycloak;
  const query = new URLSearchParams({
    client_id: web.id,
    redirect_uri: `${publicUrl}/auth/callback`,
    response_type: 'code',
    scope: 'openid basic',
    prompt: 'none',
    code_challenge: createHash('sha256').update(randomBytes(32)).digest('base64url'),
    code_challenge_method: 'S256',
  });
  const address = `${internalUrl}/realms/${encodeURIComponent(realm)}/protocol/openid-connect/auth?${query.toString()}`;
  const response = await createKeycloakFetch(timeoutMs)(address, { redirect: 'manual' });
  const location = response.headers.get('location') ?? '';
  const error = URL.canParse(location) ? new URL(location).searchParams.get('error') : null;
  const check = `sign-ins by the client ${web.id} in realm ${realm}`;
  if (error === 'login_required') return createOk(check, 'tell when the user entered the password');
  if (error === 'invalid_scope')
    return createWarning(
      check,
      'do not tell when the user entered the password, so that creating tokens, changing host keys and deleting all keys of a provider are refused',
      `Clients > ${web.id} > Client scopes: add "basic" as a default scope`,
    );
  return createWarning(
    check,
    `are refused (${error ?? `status ${String(response.status)}`})`,
    `Clients > ${web.id}: check that the client exists and is enabled, and that its valid redirect URIs contain ${publicUrl}/auth/callback`,
  );
}
