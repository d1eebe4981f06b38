import { createHash, randomBytes } from 'node:crypto';
import { fetch } from 'undici';
import { z } from 'zod';
import { createBrowser, submitLoginPages } from './browser.ts';
import { evidence } from './evidence.ts';
import { adminClient, stack, type ClientCredentials, type TestUser } from './stack.ts';

const Tokens = z.object({
  access_token: z.string(),
  id_token: z.string().optional(),
  refresh_token: z.string().optional(),
});
export type Tokens = z.output<typeof Tokens>;

/** Calls a realm's token endpoint. @returns its response, also an error. */
export async function requestTokens(
  form: Record<string, string>,
  realm: string = stack.keycloak.realm,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${stack.keycloak.url}/realms/${realm}/protocol/openid-connect/token`, {
    method: 'POST',
    body: new URLSearchParams(form),
  });
  return { status: response.status, body: await response.json() };
}

/** @throws Error when Keycloak refuses */
export async function getTokens(form: Record<string, string>, realm?: string): Promise<Tokens> {
  const { status, body } = await requestTokens(form, realm);
  if (status !== 200) throw new Error(`the token endpoint responded ${status}: ${JSON.stringify(body)}`);
  const tokens = Tokens.parse(body);
  evidence.registerSecret('access token', tokens.access_token);
  evidence.registerSecret('ID token', tokens.id_token ?? '');
  evidence.registerSecret('refresh token', tokens.refresh_token ?? '');
  return tokens;
}

/** The access token of a client's service account. */
export async function serviceToken(client: ClientCredentials, realm: string): Promise<string> {
  const form = { grant_type: 'client_credentials', client_id: client.id, client_secret: client.secret };
  return (await getTokens(form, realm)).access_token;
}

/** A token of the user's account console, requested in the same way. */
export async function accountConsoleToken(
  user: TestUser,
  realm: string = stack.keycloak.realm,
): Promise<string> {
  const base = `${stack.keycloak.url}/realms/${realm}`;
  const verifier = randomBytes(32).toString('base64url');
  const client = { client_id: 'account-console', redirect_uri: `${base}/account/` };
  const query = new URLSearchParams({
    ...client,
    response_type: 'code',
    scope: 'openid',
    state: 'state',
    code_challenge_method: 'S256',
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
  });
  const back = await submitLoginPages(
    createBrowser(),
    `${base}/protocol/openid-connect/auth?${query.toString()}`,
    user,
  );
  const code = new URL(back).searchParams.get('code') ?? '';
  const form = { ...client, grant_type: 'authorization_code', code, code_verifier: verifier };
  const tokens = await getTokens(form, realm);
  return tokens.access_token;
}

/**
 * Creates a public client, as listed in `API_CLIENT_IDS`. It issues tokens for a password, so that tests need no login
 * pages. @returns its id
 */
export async function createApiClient(): Promise<string> {
  const clientId = `api-${randomBytes(6).toString('hex')}`;
  const admin = await adminClient();
  await admin.clients.create({
    clientId,
    publicClient: true,
    standardFlowEnabled: false,
    directAccessGrantsEnabled: true,
    fullScopeAllowed: false,
    protocolMappers: [
      {
        name: 'audience',
        protocol: 'openid-connect',
        protocolMapper: 'oidc-audience-mapper',
        config: { 'included.custom.audience': 'ops-center-api', 'access.token.claim': 'true' },
      },
    ],
  });
  return clientId;
}

/** A user's tokens of a client of {@link createApiClient}. */
export function apiTokens(clientId: string, user: TestUser): Promise<Tokens> {
  const { username, password } = user;
  return getTokens({ grant_type: 'password', scope: 'openid', client_id: clientId, username, password });
}

/** Calls Keycloak with an access token. */
export async function callKeycloak(
  accessToken: string,
  method: string,
  url: string,
  json?: unknown,
): Promise<{ status: number; text: string }> {
  const response = await fetch(url, {
    method,
    ...(json === undefined ? {} : { body: JSON.stringify(json) }),
    headers: {
      authorization: `Bearer ${accessToken}`,
      accept: 'application/json',
      ...(json === undefined ? {} : { 'content-type': 'application/json' }),
    },
  });
  return { status: response.status, text: await response.text() };
}

/** An address of a realm's admin API. */
export function adminUrl(realm: string, path: string): string {
  return `${stack.keycloak.url}/admin/realms/${realm}${path}`;
}
