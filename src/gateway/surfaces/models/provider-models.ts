import type { Dialer, UpstreamResponse } from '../../../lib/net/dialer.ts';
import { LOOP_HEADER } from '../../../lib/net/loop-guard.ts';
import { parseJson } from '../../../lib/json.ts';
import { StrictUpstreamModelList, UpstreamModelList } from '../../schema.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../../lib/net/upstream-body.ts';
import type { UpstreamAddress } from '../../../providers/address.ts';

/** A model in an upstream's list. */
export interface ListedModel {
  id: string;
  /** Epoch seconds. */
  created?: number | undefined;
  owned_by?: string | undefined;
}

export interface ProviderModelsQuery {
  /** Pool id. One list is cached for each pool: that of the key used last. */
  pool: string;
  /**
   * Identifies one version of one key of the pool; never the key itself. A list is not shown for another key, which
   * may serve other models.
   */
  key: string;
  address: UpstreamAddress;
  /** The provider's authorization headers; empty when the endpoint needs no key. */
  authorization: Readonly<Record<string, string>>;
  /** Value of the loop guard header; null for addresses that no user supplied. */
  loopHeader: string | null;
  signal: AbortSignal;
}

/**
 * Reads a provider's model list, cached for 5 minutes. From an address that a user supplied, at most the first 500
 * models and 128 KB are kept.
 * @returns undefined when there is no valid model list within 2 s.
 * @throws the signal's reason.
 */
export type FindProviderModels = (query: ProviderModelsQuery) => Promise<readonly ListedModel[] | undefined>;

const CACHE_TTL_MS = 5 * 60_000;
const LIST_TIMEOUT_MS = 2_000;
const MAX_CACHED_LISTS = 1_000;
const MAX_LIST_BYTES = 8 * 1024 * 1024;
const MAX_USER_ENDPOINT_MODELS = 500;
const MAX_USER_ENDPOINT_BYTES = 128 * 1024;

export function createFindProviderModels(dialer: Dialer, now: () => number = Date.now): FindProviderModels {
  const cache = createListCache(now);
  return async (query) => {
    const cached = cache.find(query);
    if (cached !== undefined) return cached;
    try {
      const models = await fetchModels(dialer, query);
      const limited = query.address.isUserSupplied ? limitModels(models) : models;
      cache.set(query, limited);
      return limited;
    } catch {
      query.signal.throwIfAborted();
      return undefined;
    }
  };
}

type CacheKey = Pick<ProviderModelsQuery, 'pool' | 'key'>;

/** Lists by pool, the oldest first. All have the same lifetime, so the expired lists come first. */
function createListCache(now: () => number) {
  const lists = new Map<string, { key: string; models: readonly ListedModel[]; expiresAtMs: number }>();
  function dropExpired(): void {
    for (const [pool, { expiresAtMs }] of lists) {
      if (expiresAtMs > now() && lists.size <= MAX_CACHED_LISTS) return;
      lists.delete(pool);
    }
  }
  return {
    find({ pool, key }: CacheKey): readonly ListedModel[] | undefined {
      dropExpired();
      const list = lists.get(pool);
      return list?.key === key ? list.models : undefined;
    },
    set({ pool, key }: CacheKey, models: readonly ListedModel[]): void {
      lists.delete(pool);
      lists.set(pool, { key, models, expiresAtMs: now() + CACHE_TTL_MS });
      dropExpired();
    },
  };
}

/** The first models within the limits for lists from user-supplied addresses. */
function limitModels(models: readonly ListedModel[]): readonly ListedModel[] {
  let bytes = 0;
  const firstExcess = models.findIndex((model, index) => {
    bytes += Buffer.byteLength(JSON.stringify(model));
    return index >= MAX_USER_ENDPOINT_MODELS || bytes > MAX_USER_ENDPOINT_BYTES;
  });
  return firstExcess < 0 ? models : models.slice(0, firstExcess);
}

async function fetchModels(dialer: Dialer, query: ProviderModelsQuery): Promise<readonly ListedModel[]> {
  const { address, authorization, loopHeader, signal } = query;
  const response = await dialer.request({
    url: new URL(`${address.baseUrl}/models`),
    method: 'GET',
    headers: {
      accept: 'application/json',
      'accept-encoding': 'identity',
      ...authorization,
      ...(loopHeader === null ? {} : { [LOOP_HEADER]: loopHeader }),
    },
    isGuarded: address.isUserSupplied,
    signal: AbortSignal.any([signal, AbortSignal.timeout(LIST_TIMEOUT_MS)]),
    firstByteTimeoutMs: LIST_TIMEOUT_MS,
    idleTimeoutMs: LIST_TIMEOUT_MS,
  });
  try {
    return await readModels(response);
  } finally {
    discardBody(response.body);
  }
}

async function readModels(response: UpstreamResponse): Promise<readonly ListedModel[]> {
  if (response.status !== 200)
    throw upstreamMalformed(`The provider responded with status ${response.status}.`);
  const value = parseJson(await readBoundedBody(response.body, MAX_LIST_BYTES));
  // Many services respond with `{data: [{id}]}`, so from a private address the `object` members must match too.
  return (response.isFromPublicAddress ? UpstreamModelList : StrictUpstreamModelList).parse(value).data;
}
