import * as client from 'openid-client';
import type { KeycloakFetch } from '../lib/keycloak/keycloak-fetch.ts';
import { AppError, isAppError, keycloakUnavailable } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';

/** Result of a completed sign-in or token refresh. */
export interface SignInResult {
  userId: string;
  keycloakSessionId: string;
  /** Keycloak's clock, epoch ms. */
  signedInAtMs: number;
  /** When the user last proved to Keycloak who they are. The app's clock, epoch ms. Null where Keycloak does not report it. */
  authenticatedAtMs: number | null;
  idToken: string;
  refreshToken: string;
  /** When to refresh next: the expiry of the access token, at least one minute ahead. The app's clock, epoch ms. */
  refreshAtMs: number;
}

export interface AuthorizationRequest {
  /** Keycloak's authorization page. */
  url: URL;
  state: string;
  nonce: string;
  pkceVerifier: string;
}

/** Values that the sign-in callback must match. */
interface ExpectedCallback extends Omit<AuthorizationRequest, 'url'> {
  /** Seconds since the user entered credentials, at most. */
  maxAgeS?: number | undefined;
}

/** OpenID Connect client for Keycloak (authorization code flow with PKCE). */
export interface OidcClient {
  /**
   * @param maxAgeS Keycloak asks for the credentials again when they were entered longer ago, in seconds.
   * @throws AppError `keycloak_unavailable`.
   */
  startSignIn(maxAgeS?: number): Promise<AuthorizationRequest>;
  /**
   * Redeems the authorization code.
   * @param query the callback's query, with its `?`.
   * @throws AppError `keycloak_unavailable`, or `unauthenticated` if Keycloak or a check refuses the code; with
   *   `maxAgeS` also if the ID token does not say when the user entered credentials.
   */
  finishSignIn(query: string, expected: ExpectedCallback): Promise<SignInResult>;
  /** Returns new tokens; undefined if the Keycloak session has ended. @throws AppError `keycloak_unavailable`. */
  refresh(refreshToken: string): Promise<SignInResult | undefined>;
  /** Ends the Keycloak session. @returns false if Keycloak refuses the token or is unavailable. */
  endSession(refreshToken: string): Promise<boolean>;
  /** Address that signs the browser out of Keycloak. @throws AppError `keycloak_unavailable`. */
  endSessionUrl(idToken: string | undefined): Promise<URL>;
}

export interface OidcClientDeps {
  /** Keycloak's address for browsers; the issuer of its tokens starts with it. */
  url: string;
  /** Keycloak's address for requests of the app. */
  internalUrl: string;
  realm: string;
  web: { id: string; secret: string };
  publicUrl: string;
  fetch: KeycloakFetch;
  log: Log;
}

/** Lower limit for realms with a very short token lifetime. */
const MIN_REFRESH_INTERVAL_MS = 60_000;

/** Discovery runs on first use. Its result is cached after it succeeds. */
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
    startSignIn: async (maxAgeS) => createAuthorizationRequest(await configuration(), redirectUri, maxAgeS),
    // The callback is built from the configured address, not from the Host header.
    finishSignIn: async (query, expected) =>
      redeemCode(await configuration(), new URL(redirectUri + query), expected),
    refresh: async (refreshToken) => refreshTokens(await configuration(), refreshToken),
    endSession: (refreshToken) => endKeycloakSession(deps, refreshToken),
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
  maxAgeS: number | undefined,
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
    ...(maxAgeS === undefined ? {} : { max_age: String(maxAgeS) }),
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
      ...(expected.maxAgeS === undefined ? {} : { maxAge: expected.maxAgeS }),
      idTokenExpected: true,
    });
    return toSignInResult(tokens);
  } catch (error) {
    if (isOutage(error)) throw toUnavailable(error);
    throw new AppError('unauthenticated', 'The sign-in failed. Please sign in again.', { cause: error });
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

/** Keycloak's own logout call for clients that hold a refresh token; OpenID Connect has none without a browser. */
async function endKeycloakSession(deps: OidcClientDeps, refreshToken: string): Promise<boolean> {
  const realm = `/realms/${encodeURIComponent(deps.realm)}`;
  const form = { client_id: deps.web.id, client_secret: deps.web.secret, refresh_token: refreshToken };
  try {
    const response = await deps.fetch(`${deps.internalUrl}${realm}/protocol/openid-connect/logout`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form).toString(),
      redirect: 'manual',
    });
    return response.status === 204;
  } catch (error) {
    if (isAppError(error, 'keycloak_unavailable')) return false;
    throw error;
  }
}

/**
 * Reads Keycloak's metadata from the internal address. Endpoints that the app calls are rewritten to that address:
 * without KC_HOSTNAME_BACKCHANNEL_DYNAMIC, Keycloak returns the public one, which a container may not reach.
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
      // The library compares by function identity, so a wrapper would not be recognized.
      // eslint-disable-next-line @typescript-eslint/no-deprecated
      ...(isHttp ? { execute: [client.allowInsecureRequests] } : {}),
    },
  );
  const metadata = first.serverMetadata();
  if (metadata.issuer !== issuer) {
    deps.log.error(
      { expected: issuer, found: metadata.issuer },
      "Keycloak's issuer does not match KEYCLOAK_URL",
    );
    throw new Error("Keycloak's issuer does not match KEYCLOAK_URL. Correct the setting.");
  }
  const config = new client.Configuration(
    withInternalEndpoints(metadata, deps),
    deps.web.id,
    undefined,
    auth,
  );
  config[client.customFetch] = deps.fetch;
  if (isHttp) allowPlainHttp(config);
  // OpenID Connect lets clients skip the signature check of ID tokens received over TLS. Here plain http is possible.
  client.enableNonRepudiationChecks(config);
  return config;
}

/** Rewrites the endpoints that the app calls to the internal address. */
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

/** The library marks it deprecated only as a warning. An http issuer is possible in local mode only. */
// eslint-disable-next-line @typescript-eslint/no-deprecated
const allowPlainHttp: (config: client.Configuration) => void = client.allowInsecureRequests;

function toSignInResult(tokens: Awaited<ReturnType<typeof client.refreshTokenGrant>>): SignInResult {
  const claims = tokens.claims();
  const sid = claims?.['sid'];
  if (claims === undefined || typeof sid !== 'string' || !tokens.id_token || !tokens.refresh_token) {
    throw new Error('Keycloak returned no ID token with a session id, or no refresh token');
  }
  const expiresInMs = (tokens.expires_in ?? 0) * 1000;
  const { auth_time: authTime, iat } = claims;
  return {
    userId: claims.sub,
    keycloakSessionId: sid,
    signedInAtMs: iat * 1000,
    // Both times are of Keycloak's clock, so that a difference to this one's does not count.
    authenticatedAtMs: authTime === undefined ? null : Date.now() - Math.max(0, iat - authTime) * 1000,
    idToken: tokens.id_token,
    refreshToken: tokens.refresh_token,
    refreshAtMs: Date.now() + Math.max(expiresInMs, MIN_REFRESH_INTERVAL_MS),
  };
}

/** The library wraps errors thrown by fetch, so an outage is found in the chain of causes. */
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
    keycloakUnavailable(error, 'Keycloak returned an invalid response. Try again shortly.')
  );
}
