import { fetch as undiciFetch } from 'undici';
import { keycloakUnavailable } from '../errors.ts';

interface FetchInit {
  method?: string;
  headers?: Record<string, string> | Headers;
  body?: unknown;
  redirect?: 'manual';
  signal?: AbortSignal | null;
}

/** `fetch` for Keycloak's own addresses, in the shape in which openid-client and jose take one. */
export type KeycloakFetch = (url: string, init?: FetchInit) => Promise<Response>;

/**
 * Builds the fetch. No answer, a slow one and a 5xx all are AppError `keycloak_unavailable`, so that an outage
 * is never mistaken for a bad token.
 * @param timeoutMs for a whole call.
 */
export function createKeycloakFetch(timeoutMs: number): KeycloakFetch {
  return async (url, init = {}) => {
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
    const headers = Object.fromEntries(new Headers(init.headers));
    const request = { ...init, headers, signal } as Parameters<typeof undiciFetch>[1];
    const response = await undiciFetch(url, request).catch((error: unknown) => {
      throw keycloakUnavailable(error);
    });
    if (response.status >= 500) {
      await response.body?.cancel();
      throw keycloakUnavailable(new Error(`Keycloak answered ${String(response.status)}`));
    }
    // The libraries take the global class, which is not the one of this package.
    const body = await response.arrayBuffer().catch((error: unknown) => {
      throw keycloakUnavailable(error);
    });
    const { status, headers: received } = response;
    return new Response(body.byteLength === 0 ? null : body, {
      status,
      headers: Object.fromEntries(received),
    });
  };
}
