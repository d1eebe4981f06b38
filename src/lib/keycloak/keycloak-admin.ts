import KcAdminClient, { NetworkError } from '@keycloak/keycloak-admin-client';
import { request } from 'undici';
import { z } from 'zod';
import { isAppError, keycloakUnavailable } from '../errors.ts';

export interface KeycloakAdminOptions {
  /** Keycloak's address as this process reaches it, without `/realms`. */
  baseUrl: string;
  realm: string;
  clientId: string;
  clientSecret: string;
  /** One call's time at most. */
  timeoutMs?: number;
}

/** Keycloak's admin REST interface for one realm, as one service account. */
export interface KeycloakAdmin {
  readonly realm: string;
  /**
   * Runs calls against the realm.
   * @param limitMs for all of `work`, a token and a repetition included; without it each request has a time
   *   of its own. When it is over, the request under way is cut off and no other is sent.
   * @throws AppError `keycloak_unavailable` (503) when Keycloak is away, slow or answers 5xx, 401 or 429.
   *   Other HTTP errors pass as the client's `NetworkError`, for the caller to judge.
   */
  call<T>(work: (client: KcAdminClient) => Promise<T>, limitMs?: number): Promise<T>;
  /** Resolves when the realm answers; needs no credential. Throws `keycloak_unavailable` otherwise. */
  ping(): Promise<void>;
}

const TokenResponse = z.object({ access_token: z.string(), expires_in: z.number() });
/** A token is renewed this long before it ends, so that none expires on the way. */
const RENEW_BEFORE_MS = 30_000;

/** Builds the client. */
export function createKeycloakAdmin(options: KeycloakAdminOptions): KeycloakAdmin {
  const timeoutMs = options.timeoutMs ?? 5_000;
  const connection = { baseUrl: options.baseUrl, realmName: options.realm };
  const tokens = createTokenSource(options, timeoutMs);
  const defaultClient = new KcAdminClient({ ...connection, timeout: timeoutMs });
  defaultClient.registerTokenProvider({ getAccessToken: () => tokens.get() });

  /**
   * A client of its own: the library knows no limit per call. It passes a signal on, though its type does not
   * say so, as long as it has no `timeout`.
   */
  function createLimitedClient(limitMs: number): KcAdminClient {
    const signal = AbortSignal.timeout(Math.max(0, Math.min(limitMs, timeoutMs)));
    const requestOptions: RequestInit = { signal };
    const client = new KcAdminClient({ ...connection, requestOptions });
    client.registerTokenProvider({ getAccessToken: () => withAbort(tokens.get(), signal) });
    return client;
  }

  return {
    realm: options.realm,
    async call(work, limitMs) {
      const client = limitMs === undefined ? defaultClient : createLimitedClient(limitMs);
      try {
        return await work(client).catch((error: unknown) => {
          // Tokens die early: with a restart of Keycloak, and when an administrator signs the realm out.
          if (keycloakStatus(error) !== 401) throw error;
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
        throw keycloakUnavailable(new Error(`the realm answered ${response.statusCode}`));
    },
  };
}

/** The service account's access token. */
interface TokenSource {
  get(): Promise<string>;
  /** Makes the next `get` ask Keycloak. */
  invalidate(): void;
}

/**
 * Caches the token and fetches it once for all who wait. The library's own handling refuses every call from
 * 5 s before expiry on under client_credentials.
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
    throw keycloakUnavailable(new Error(`Keycloak answered ${statusCode} to ${clientId} asking for a token`));
  return { token: response.data.access_token, lifetimeMs: response.data.expires_in * 1000 };
}

/** Rejects with the signal's reason when that comes first; the promise itself goes on for others. */
async function withAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => {
    aborted.reject(signal.reason);
  };
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** The HTTP status of an answer that the admin client turned into an error, else undefined. */
export function keycloakStatus(error: unknown): number | undefined {
  return error instanceof NetworkError ? error.response.status : undefined;
}

function isOutage(error: unknown): boolean {
  if (isAppError(error)) return false;
  const status = keycloakStatus(error);
  return status === undefined || status >= 500 || status === 401 || status === 429;
}
