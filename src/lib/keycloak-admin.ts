import KcAdminClient, { NetworkError } from '@keycloak/keycloak-admin-client';
import { request } from 'undici';
import { z } from 'zod';
import { AppError } from './errors.ts';

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
   * @throws AppError `keycloak_unavailable` (503) when Keycloak is away, slow or answers 5xx, 401 or 429.
   *   Other HTTP errors pass as the client's `NetworkError`, for the caller to judge.
   */
  call<T>(work: (client: KcAdminClient) => Promise<T>): Promise<T>;
  /** Resolves when the realm answers; needs no credential. Throws `keycloak_unavailable` otherwise. */
  ping(): Promise<void>;
}

const TokenAnswer = z.object({ access_token: z.string(), expires_in: z.number() });
/** A token is renewed this long before it ends, so that none expires on the way. */
const RENEW_BEFORE_MS = 30_000;

/**
 * Builds the client. Its own token handling refuses every call from 5 s before expiry on under
 * client_credentials, so the token comes from here: cached, and fetched once for all who wait.
 */
export function createKeycloakAdmin(options: KeycloakAdminOptions): KeycloakAdmin {
  const timeoutMs = options.timeoutMs ?? 5_000;
  const client = new KcAdminClient({
    baseUrl: options.baseUrl,
    realmName: options.realm,
    timeout: timeoutMs,
  });
  let cached: { token: string; renewAtMs: number } | undefined;
  let pending: Promise<string> | undefined;

  async function fetchToken(): Promise<string> {
    const { statusCode, body } = await request(
      `${options.baseUrl}/realms/${encodeURIComponent(options.realm)}/protocol/openid-connect/token`,
      {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({
          grant_type: 'client_credentials',
          client_id: options.clientId,
          client_secret: options.clientSecret,
        }).toString(),
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      },
    );
    const answer = TokenAnswer.safeParse(await body.json().catch(() => undefined));
    if (statusCode !== 200 || !answer.success) {
      throw unavailable(
        new Error(`Keycloak answered ${statusCode} to ${options.clientId} asking for a token`),
      );
    }
    cached = {
      token: answer.data.access_token,
      renewAtMs: Date.now() + Math.max(answer.data.expires_in * 1000 - RENEW_BEFORE_MS, 1_000),
    };
    return cached.token;
  }

  client.registerTokenProvider({
    getAccessToken: async () => {
      if (cached !== undefined && Date.now() < cached.renewAtMs) return cached.token;
      pending ??= fetchToken().finally(() => {
        pending = undefined;
      });
      return pending;
    },
  });

  return {
    realm: options.realm,
    async call(work) {
      try {
        return await work(client).catch((error: unknown) => {
          // Tokens die early: with a restart of Keycloak, and when an administrator signs the realm out.
          if (keycloakStatus(error) !== 401) throw error;
          cached = undefined;
          return work(client);
        });
      } catch (error) {
        if (isOutage(error)) throw unavailable(error);
        throw error;
      }
    },
    async ping() {
      const answer = await request(`${options.baseUrl}/realms/${encodeURIComponent(options.realm)}`, {
        headersTimeout: timeoutMs,
        bodyTimeout: timeoutMs,
      }).catch((error: unknown) => {
        throw unavailable(error);
      });
      await answer.body.dump();
      if (answer.statusCode !== 200) throw unavailable(new Error(`the realm answered ${answer.statusCode}`));
    },
  };
}

/** The HTTP status of an answer that the admin client turned into an error, else undefined. */
export function keycloakStatus(error: unknown): number | undefined {
  return error instanceof NetworkError ? error.response.status : undefined;
}

function isOutage(error: unknown): boolean {
  if (error instanceof AppError) return false;
  const status = keycloakStatus(error);
  return status === undefined || status >= 500 || status === 401 || status === 429;
}

function unavailable(cause: unknown): AppError {
  return new AppError('keycloak_unavailable', 'Keycloak cannot be reached right now. Try again shortly.', {
    cause,
    headers: { 'retry-after': '2' },
  });
}
