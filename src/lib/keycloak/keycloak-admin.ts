import KcAdminClient, { NetworkError } from '@keycloak/keycloak-admin-client';
import { request } from 'undici';
import { z } from 'zod';
import { rejectOnAbort } from '../async/reject-on-abort.ts';
import { isAppError, keycloakUnavailable } from '../errors.ts';

export interface KeycloakAdminOptions {
  /** Keycloak's address as this process reaches it, without `/realms`. */
  baseUrl: string;
  realm: string;
  clientId: string;
  clientSecret: string;
  /** Time limit of one request. */
  timeoutMs?: number;
}

/** Keycloak's admin REST API for one realm, with one service account. */
export interface KeycloakAdmin {
  readonly realm: string;
  /**
   * Calls the realm's API.
   * @param limitMs for all of `work`, including a token request and a retry. After it the open request is aborted
   *   and no other is sent. Without it only each single request is limited.
   * @throws AppError `keycloak_unavailable` (503) when Keycloak is unreachable, slow or responds 5xx, 401 or 429.
   *   Other HTTP errors are thrown as the client's `NetworkError`.
   */
  call<T>(work: (client: KcAdminClient) => Promise<T>, limitMs?: number): Promise<T>;
  /** Resolves when the realm responds; needs no credential. @throws AppError `keycloak_unavailable`. */
  ping(): Promise<void>;
}

const TokenResponse = z.object({ access_token: z.string(), expires_in: z.number() });
/** A token is renewed this long before it expires, so that it does not expire during a request. */
const RENEW_BEFORE_MS = 30_000;

export function createKeycloakAdmin(options: KeycloakAdminOptions): KeycloakAdmin {
  const timeoutMs = options.timeoutMs ?? 5_000;
  const connection = { baseUrl: options.baseUrl, realmName: options.realm };
  const tokens = createTokenSource(options, timeoutMs);
  const defaultClient = new KcAdminClient({ ...connection, timeout: timeoutMs });
  defaultClient.registerTokenProvider({ getAccessToken: () => tokens.get() });

  /**
   * The library has no limit per call, so each limited call gets its own client. The library passes on a signal
   * (which its type does not declare) as long as `timeout` is not set.
   */
  function createLimitedClient(limitMs: number): KcAdminClient {
    const signal = AbortSignal.timeout(Math.max(0, Math.min(limitMs, timeoutMs)));
    const requestOptions: RequestInit = { signal };
    const client = new KcAdminClient({ ...connection, requestOptions });
    client.registerTokenProvider({ getAccessToken: () => rejectOnAbort(tokens.get(), signal) });
    return client;
  }

  return {
    realm: options.realm,
    async call(work, limitMs) {
      const client = limitMs === undefined ? defaultClient : createLimitedClient(limitMs);
      try {
        return await work(client).catch((error: unknown) => {
          // Tokens become invalid early when Keycloak restarts or an administrator signs out the realm.
          if (findKeycloakStatus(error) !== 401) throw error;
          tokens.invalidate();
          return work(client);
        });
      } catch (error) {
        if (isOutage(error)) throw keycloakUnavailable(error);
        throw error;
      }
    },
    async ping() {
      const response = await request(`${options.baseUrl}/realms/${encodeURIComponent(options.realm)}`, {
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      }).catch((error: unknown) => {
        throw keycloakUnavailable(error);
      });
      await response.body.dump();
      if (response.statusCode !== 200)
        throw keycloakUnavailable(new Error(`the realm responded ${response.statusCode}`));
    },
  };
}

/** Provides the service account's access token. */
interface TokenSource {
  get(): Promise<string>;
  /** The next `get` requests a new token. */
  invalidate(): void;
}

/**
 * Caches the token and fetches it once for all concurrent callers. The library's own token handling refuses every
 * call from 5 s before expiry on with client_credentials.
 */
function createTokenSource(options: KeycloakAdminOptions, timeoutMs: number): TokenSource {
  let cached: { token: string; renewAtMs: number } | undefined;
  let pending: Promise<string> | undefined;

  async function fetchToken(): Promise<string> {
    const { token, lifetimeMs } = await requestToken(options, timeoutMs);
    cached = { token, renewAtMs: Date.now() + Math.max(lifetimeMs - RENEW_BEFORE_MS, 1_000) };
    return token;
  }

  return {
    async get() {
      if (cached !== undefined && Date.now() < cached.renewAtMs) return cached.token;
      pending ??= fetchToken().finally(() => {
        pending = undefined;
      });
      return pending;
    },
    invalidate() {
      cached = undefined;
    },
  };
}

async function requestToken(
  { baseUrl, realm, clientId, clientSecret }: KeycloakAdminOptions,
  timeoutMs: number,
): Promise<{ token: string; lifetimeMs: number }> {
  const { statusCode, body } = await request(
    `${baseUrl}/realms/${encodeURIComponent(realm)}/protocol/openid-connect/token`,
    {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({
        grant_type: 'client_credentials',
        client_id: clientId,
        client_secret: clientSecret,
      }).toString(),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    },
  );
  const response = TokenResponse.safeParse(await body.json().catch(() => undefined));
  if (statusCode !== 200 || !response.success)
    throw keycloakUnavailable(
      new Error(`Keycloak responded ${statusCode} to the token request of ${clientId}`),
    );
  return { token: response.data.access_token, lifetimeMs: response.data.expires_in * 1000 };
}

/** The HTTP status of the admin client's error; undefined for other errors. */
export function findKeycloakStatus(error: unknown): number | undefined {
  return error instanceof NetworkError ? error.response.status : undefined;
}

function isOutage(error: unknown): boolean {
  if (isAppError(error)) return false;
  const status = findKeycloakStatus(error);
  return status === undefined || status >= 500 || status === 401 || status === 429;
}
