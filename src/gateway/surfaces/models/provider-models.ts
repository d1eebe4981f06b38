import type { Dialer, UpstreamResponse } from '../../../lib/net/dialer.ts';
import { LOOP_HEADER } from '../../../lib/net/loop-guard.ts';
import { parseJson } from '../../../lib/json.ts';
import { StrictUpstreamModelList, UpstreamModelList } from '../../schema.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../../lib/net/upstream-body.ts';
import type { UpstreamAddress } from '../../../providers/address.ts';

/** A model as an upstream lists it. */
export interface ListedModel {
  id: string;
  /** Epoch seconds. */
  created?: number | undefined;
  owned_by?: string | undefined;
}

export interface ProviderModelsQuery {
  /** The pool: each has one list, of the key that was asked with last. */
  pool: string;
  /**
   * What tells the keys of a pool apart, one that was replaced from the one before too; never a key itself.
   * Another key's list is not shown: it may reach other models.
   */
  key: string;
  address: UpstreamAddress;
  /** What carries the key, as this provider wants it; none where the endpoint wants no key. */
  authorization: Readonly<Record<string, string>>;
  /** For an address that a user brought. */
  loopHeader: string | null;
  signal: AbortSignal;
}

/**
 * Asks a provider for its models; remembered for 5 minutes. Of a list from an address that a user brought, the
 * first 500 models and 128 KB are taken.
 * @returns undefined when it does not answer within 2 s, or not with a model list.
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

/** Lists by pool, the oldest first: all live equally long, so the expired ones stand in front. */
function createListCache(now: () => number) {
  const lists = new Map<string, { key: string; models: readonly ListedModel[]; untilMs: number }>();
  function dropExpired(): void {
    for (const [pool, { untilMs }] of lists) {
      if (untilMs > now() && lists.size <= MAX_CACHED_LISTS) return;
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
      lists.set(pool, { key, models, untilMs: now() + CACHE_TTL_MS });
      dropExpired();
    },
  };
}

/** The models in front that are not more than may be kept of a list that anybody can have written. */
function limitModels(models: readonly ListedModel[]): readonly ListedModel[] {
  let bytes = 0;
  const firstExcess = models.findIndex((model, index) => {
    bytes += Buffer.byteLength(JSON.stringify(model));
    return index >= MAX_USER_ENDPOINT_MODELS || bytes > MAX_USER_ENDPOINT_BYTES;
  });
  return firstExcess < 0 ? models : models.slice(0, firstExcess);
}

async function fetchModels(dialer: Dialer, query: ProviderModelsQuery): Promise<readonly ListedModel[]> {
  const { address, authorization, loopHeader: hop, signal } = query;
  const response = await dialer.request({
    url: new URL(`${address.baseUrl}/models`),
    method: 'GET',
    headers: {
      accept: 'application/json',
      'accept-encoding': 'identity',
      ...authorization,
      ...(hop === null ? {} : { [LOOP_HEADER]: hop }),
    },
    guarded: address.isUserSupplied,
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
  if (response.status !== 200) throw upstreamMalformed(`The provider answered ${response.status}.`);
  const value = parseJson((await readBoundedBody(response.body, MAX_LIST_BYTES)).toString('utf8'));
  // Many a service answers `{data: [{id}]}`: from a private address only what calls itself a model list counts.
  return (response.fromPublicAddress ? UpstreamModelList : StrictUpstreamModelList).parse(value).data;
}
