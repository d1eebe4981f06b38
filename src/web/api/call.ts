import type { z } from 'zod';
import { ApiError } from './problem.ts';

export interface CallOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  body?: unknown;
  /** Version that the change is based on: 412 `version_mismatch` when the object was changed since. */
  ifMatch?: string;
  signal?: AbortSignal;
}

/**
 * Calls the API with the session cookie.
 * @param schema of the response; members it does not name are dropped.
 * @throws ApiError
 */
export async function callApi<T>(path: string, schema: z.ZodType<T>, options: CallOptions = {}): Promise<T> {
  const response = await send(path, options);
  const body = await readJson(response);
  if (!response.ok) throw new ApiError(response.status, body);
  const result = schema.safeParse(body);
  if (!result.success) throw new ApiError(response.status, undefined);
  return result.data;
}

async function send(path: string, { method = 'GET', body, ifMatch, signal }: CallOptions): Promise<Response> {
  try {
    return await fetch(path, {
      method,
      headers: {
        accept: 'application/json',
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(ifMatch === undefined ? {} : { 'if-match': `"${ifMatch}"` }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal === undefined ? {} : { signal }),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiError(0, undefined);
  }
}

async function readJson(response: Response): Promise<unknown> {
  try {
    return await response.json();
  } catch {
    return undefined;
  }
}
