import { fetch as undiciFetch } from 'undici';
import { keycloakUnavailable } from '../errors.ts';

interface FetchInit {
  method?: string;
  headers?: Record<string, string> | Headers;
  body?: unknown;
  redirect?: 'manual';
  signal?: AbortSignal | null;
}

/** `fetch` for Keycloak's addresses, with the signature that openid-client and jose accept. */
export type KeycloakFetch = (url: string, init?: FetchInit) => Promise<Response>;

/**
 * Throws AppError `keycloak_unavailable` for no response, a timeout and 5xx, so that an outage is never taken for an
 * invalid token.
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
      throw keycloakUnavailable(new Error(`Keycloak responded ${String(response.status)}`));
    }
    // The libraries expect the global Response, not undici's class.
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
