import * as client from 'openid-client';
import type { KeycloakFetch } from '../lib/keycloak/keycloak-fetch.ts';
import { AppError, isAppError, keycloakUnavailable } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';

/** What a completed sign-in or refresh tells. */
export interface SignInResult {
  userId: string;
  keycloakSessionId: string;
  /** Keycloak's clock, epoch ms. */
  signedInAtMs: number;
  idToken: string;
  refreshToken: string;
  /** Our clock, epoch ms: when the access token ends and it is time to ask again. */
  refreshAtMs: number;
}

export interface AuthorizationRequest {
  /** Where the browser goes. */
  url: URL;
  state: string;
  nonce: string;
  pkceVerifier: string;
}

/** What the callback of a sign-in must match. */
type ExpectedCallback = Omit<AuthorizationRequest, 'url'>;

/** Keycloak as the place where people sign in (OpenID Connect, authorization code with PKCE). */
export interface OidcClient {
  /** @throws AppError `keycloak_unavailable`. */
  startSignIn(): Promise<AuthorizationRequest>;
  /**
   * Redeems the code. @param query the callback's query, with its `?`.
   * @throws AppError `keycloak_unavailable`, or `unauthenticated` when Keycloak or a check says no.
   */
  finishSignIn(query: string, expected: ExpectedCallback): Promise<SignInResult>;
  /** New tokens; undefined when Keycloak says that the sign-in is over. @throws AppError `keycloak_unavailable`. */
  refresh(refreshToken: string): Promise<SignInResult | undefined>;
  /** Where the browser goes to sign out of Keycloak too. @throws AppError `keycloak_unavailable`. */
  endSessionUrl(idToken: string | undefined): Promise<URL>;
}

export interface OidcClientDeps {
  /** Keycloak as the browser sees it; its tokens' issuer begins with it. */
  url: string;
  /** Keycloak as this process reaches it. */
  internalUrl: string;
  realm: string;
  web: { id: string; secret: string };
  publicUrl: string;
  fetch: KeycloakFetch;
  log: Log;
}

/** Asking more often than this gains nothing, whatever a realm's token lifetime says. */
const MIN_REFRESH_INTERVAL_MS = 60_000;

/** Builds the client. Discovery happens on first use and is kept once it succeeded. */
export function createOidcClient(deps: OidcClientDeps): OidcClient {
  const redirectUri = `${deps.publicUrl}/auth/callback`;
  let discovered: Promise<client.Configuration> | undefined;

  function configuration(): Promise<client.Configuration> {
    discovered ??= discover(deps).catch((error: unknown) => {
      discovered = undefined;
      throw toUnavailable(error);
    });
    return discovered;
  }

  return {
    startSignIn: async () => createAuthorizationRequest(await configuration(), redirectUri),
    // Built from the configured address: the Host header has no say in what is redeemed.
    finishSignIn: async (query, expected) =>
      redeemCode(await configuration(), new URL(redirectUri + query), expected),
    refresh: async (refreshToken) => refreshTokens(await configuration(), refreshToken),
    async endSessionUrl(idToken) {
      return client.buildEndSessionUrl(await configuration(), {
        post_logout_redirect_uri: `${deps.publicUrl}/`,
        ...(idToken === undefined ? {} : { id_token_hint: idToken }),
      });
    },
  };
}

async function createAuthorizationRequest(
  config: client.Configuration,
  redirectUri: string,
): Promise<AuthorizationRequest> {
  const pkceVerifier = client.randomPKCECodeVerifier();
  const [state, nonce] = [client.randomState(), client.randomNonce()];
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid',
    code_challenge: await client.calculatePKCECodeChallenge(pkceVerifier),
    code_challenge_method: 'S256',
    state,
    nonce,
  });
  return { url, state, nonce, pkceVerifier };
}

async function redeemCode(
  config: client.Configuration,
  callback: URL,
  expected: ExpectedCallback,
): Promise<SignInResult> {
  try {
    const tokens = await client.authorizationCodeGrant(config, callback, {
      pkceCodeVerifier: expected.pkceVerifier,
      expectedState: expected.state,
      expectedNonce: expected.nonce,
      idTokenExpected: true,
    });
    return toSignInResult(tokens);
  } catch (error) {
    if (isOutage(error)) throw toUnavailable(error);
    throw new AppError('unauthenticated', 'Signing in did not work. Please sign in again.', { cause: error });
  }
}

async function refreshTokens(
  config: client.Configuration,
  refreshToken: string,
): Promise<SignInResult | undefined> {
  try {
    return toSignInResult(await client.refreshTokenGrant(config, refreshToken));
  } catch (error) {
    if (error instanceof client.ResponseBodyError && error.error === 'invalid_grant') return undefined;
    throw toUnavailable(error);
  }
}

/**
 * Reads Keycloak's metadata over the internal address. What the app itself calls is moved to that address: a
 * Keycloak without KC_HOSTNAME_BACKCHANNEL_DYNAMIC names the public one, which a container may not reach.
 */
async function discover(deps: OidcClientDeps): Promise<client.Configuration> {
  const realm = `/realms/${encodeURIComponent(deps.realm)}`;
  const issuer = deps.url + realm;
  const isHttp = issuer.startsWith('http:');
  const auth = client.ClientSecretPost(deps.web.secret);
  const first = await client.discovery(
    new URL(`${deps.internalUrl}${realm}/.well-known/openid-configuration`),
    deps.web.id,
    undefined,
    auth,
    {
      [client.customFetch]: deps.fetch,
      // The library looks for this very function in the list; a wrapper of ours is not recognised.
      // eslint-disable-next-line @typescript-eslint/no-deprecated
      ...(isHttp ? { execute: [client.allowInsecureRequests] } : {}),
    },
  );
  const metadata = first.serverMetadata();
  if (metadata.issuer !== issuer) {
    deps.log.error({ expected: issuer, found: metadata.issuer }, 'Keycloak names another issuer');
    throw new Error('Keycloak names another issuer than KEYCLOAK_URL says');
  }
  const config = new client.Configuration(
    withInternalEndpoints(metadata, deps),
    deps.web.id,
    undefined,
    auth,
  );
  config[client.customFetch] = deps.fetch;
  if (isHttp) allowPlainHttp(config);
  // ID tokens straight from the token endpoint may go unchecked over TLS; ours can come over plain http.
  client.enableNonRepudiationChecks(config);
  return config;
}

/** What the app itself calls, at the internal address. */
function withInternalEndpoints(
  metadata: client.ServerMetadata,
  { url, internalUrl }: OidcClientDeps,
): client.ServerMetadata {
  const moved = (['token_endpoint', 'jwks_uri'] as const).flatMap((name) => {
    const address = metadata[name];
    return address?.startsWith(`${url}/`) === true ? [[name, internalUrl + address.slice(url.length)]] : [];
  });
  return { ...metadata, ...(Object.fromEntries(moved) as Partial<client.ServerMetadata>) };
}

/** Deprecated by the library only to stand out; an http issuer exists in local mode alone. */
// eslint-disable-next-line @typescript-eslint/no-deprecated
const allowPlainHttp: (config: client.Configuration) => void = client.allowInsecureRequests;

function toSignInResult(tokens: Awaited<ReturnType<typeof client.refreshTokenGrant>>): SignInResult {
  const claims = tokens.claims();
  const sid = claims?.['sid'];
  if (claims === undefined || typeof sid !== 'string' || !tokens.id_token || !tokens.refresh_token) {
    throw new Error('Keycloak sent no ID token with a session id, or no refresh token');
  }
  const expiresInMs = (tokens.expires_in ?? 0) * 1000;
  return {
    userId: claims.sub,
    keycloakSessionId: sid,
    signedInAtMs: claims.iat * 1000,
    idToken: tokens.id_token,
    refreshToken: tokens.refresh_token,
    refreshAtMs: Date.now() + Math.max(expiresInMs, MIN_REFRESH_INTERVAL_MS),
  };
}

/** The library wraps what fetch threw; an outage is somewhere among the causes. */
function findOutage(error: unknown): AppError | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (isAppError(current, 'keycloak_unavailable')) return current;
  }
  return undefined;
}

function isOutage(error: unknown): boolean {
  return findOutage(error) !== undefined;
}

function toUnavailable(error: unknown): AppError {
  return (
    findOutage(error) ??
    keycloakUnavailable(error, 'Keycloak gave an answer that cannot be used. Try again shortly.')
  );
}
