import type { z } from 'zod';
import { setAppState } from '../app-state.ts';
import { ApiError } from './problem.ts';

export interface CallOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  body?: unknown;
  /** Version that the change is based on: 412 `version_mismatch` when the object was changed since. */
  ifMatch?: string;
  /** A repeated create with the same key is answered as the first one. */
  idempotencyKey?: string;
  /** Defaults to JSON. */
  accept?: string;
  /** 202 at once for what takes long. */
  respondsAsync?: boolean;
  signal?: AbortSignal;
}

/**
 * Calls the API with the session cookie.
 * @param schema of the response; members it does not name are dropped.
 * @throws ApiError
 */
export async function callApi<T>(path: string, schema: z.ZodType<T>, options: CallOptions = {}): Promise<T> {
  const response = await openResponse(path, options);
  const result = schema.safeParse(await readJson(response));
  if (!result.success) throw new ApiError(response.status, undefined);
  return result.data;
}

/**
 * Calls the API and leaves the body to the caller, for streams and downloads.
 * @throws ApiError also for a status that is no success.
 */
export async function openResponse(path: string, options: CallOptions = {}): Promise<Response> {
  const response = await send(path, options);
  if (response.ok) {
    setAppState({ connection: 'connected' });
    return response;
  }
  const error = new ApiError(response.status, await readJson(response));
  setAppState({ connection: isServerAway(error) ? 'lost' : 'connected' });
  throw error;
}

async function send(path: string, options: CallOptions): Promise<Response> {
  const {
    method = 'GET',
    body,
    ifMatch,
    idempotencyKey,
    respondsAsync,
    accept = 'application/json',
    signal,
  } = options;
  try {
    return await fetch(path, {
      method,
      headers: {
        accept,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(respondsAsync === true ? { prefer: 'respond-async' } : {}),
        ...(ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }),
        ...(idempotencyKey === undefined ? {} : { 'idempotency-key': idempotencyKey }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    setAppState({ connection: 'lost' });
    throw new ApiError(0, undefined);
  }
}

/** Codes of a server that runs but cannot serve now, and proxies' own errors. Failures of a provider are no such case. */
const AWAY_CODES = new Set(['keycloak_unavailable', 'database_unavailable', 'draining', 'bad_response']);

function isServerAway({ status, code }: ApiError): boolean {
  return status >= 502 && status <= 504 && AWAY_CODES.has(code);
}

async function readJson(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    return undefined;
  }
}
