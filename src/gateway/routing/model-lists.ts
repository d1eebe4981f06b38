import type { Dialer, UpstreamResponse } from '../../lib/net/dialer.ts';
import { LOOP_HEADER } from '../../lib/net/loop-guard.ts';
import { parseJson } from '../../lib/json.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../lib/net/upstream-body.ts';
import type { UpstreamAddress } from '../../providers/address.ts';
import { StrictUpstreamModelList, UpstreamModelList } from '../schema.ts';
import { createModelNames, type KnownList, type ModelNames } from './model-order.ts';

/** A model in an upstream's list. */
export interface ListedModel {
  id: string;
  /** Epoch seconds. */
  created?: number | undefined;
  owned_by?: string | undefined;
}

/** One version of one key, as lists are cached for it. */
export interface ListId {
  /** Id of the key's pool. One list is kept for each pool: that of the key used last. */
  pool: string;
  /**
   * Identifies one version of one key of the pool; never the key itself. A list is not used for another key, which
   * may serve other models.
   */
  key: string;
}

export interface ModelListQuery extends ListId {
  address: UpstreamAddress;
  /** The provider's authorization headers; empty when the endpoint needs no key. */
  authorization: Readonly<Record<string, string>>;
  /** Value of the loop guard header; null for addresses that no user supplied. */
  loopHeader: string | null;
}

/**
 * The providers' model lists. From an address that a user supplied, at most the first 500 models and 128 KB are kept.
 */
export interface ModelLists {
  /** What is known without a call: the last list that was read, however old. */
  find(id: ListId): KnownList;
  /** True when a list should be read again: it is older than 5 minutes, or reading failed more than 30 s ago. */
  isStale(id: ListId): boolean;
  /**
   * The list, read again when it is stale. Calls for the same list share one request, which ends after 2 s.
   * @returns the last list that was read when reading fails; undefined when none was. Never throws.
   */
  read(query: ModelListQuery): Promise<readonly ListedModel[] | undefined>;
}

const FRESH_MS = 5 * 60_000;
/** An upstream that sends no list is asked again after this time. */
const RETRY_MS = 30_000;
const LIST_TIMEOUT_MS = 2_000;
/** A list that was not used for this long is dropped from memory. */
const UNUSED_MS = 60 * 60_000;
const MAX_CACHED_LISTS = 1_000;
const MAX_LIST_BYTES = 8 * 1024 * 1024;
const MAX_USER_ENDPOINT_MODELS = 500;
const MAX_USER_ENDPOINT_BYTES = 128 * 1024;

interface CachedList {
  key: string;
  /** The last list that was read; undefined when none was. */
  good: { models: readonly ListedModel[]; names: ModelNames } | undefined;
  staleAtMs: number;
  usedAtMs: number;
  reading: Promise<readonly ListedModel[] | undefined> | undefined;
}

export function createModelLists(dialer: Dialer, now: () => number = Date.now): ModelLists {
  const cache = createListCache(now);

  async function refresh(
    query: ModelListQuery,
    list: CachedList,
  ): Promise<readonly ListedModel[] | undefined> {
    try {
      const models = await fetchModels(dialer, query);
      const kept = query.address.isUserSupplied ? limitModels(models) : models;
      list.good = { models: kept, names: createModelNames(kept.map(({ id }) => id)) };
      list.staleAtMs = now() + FRESH_MS;
    } catch {
      list.staleAtMs = now() + RETRY_MS;
    }
    list.reading = undefined;
    return list.good?.models;
  }

  return {
    find(id) {
      const list = cache.find(id);
      if (list === undefined || (list.good === undefined && list.reading !== undefined))
        return { state: 'unread' };
      return list.good === undefined ? { state: 'unreadable' } : { state: 'read', names: list.good.names };
    },
    isStale(id) {
      const list = cache.find(id);
      return list === undefined || list.staleAtMs <= now();
    },
    read(query) {
      const list = cache.findOrCreate(query);
      if (list.reading === undefined && list.staleAtMs > now()) return Promise.resolve(list.good?.models);
      return (list.reading ??= refresh(query, list));
    },
  };
}

/** Lists by pool, the least recently used first. */
function createListCache(now: () => number) {
  const lists = new Map<string, CachedList>();
  function dropUnused(): void {
    for (const [pool, { usedAtMs }] of lists) {
      if (usedAtMs + UNUSED_MS > now() && lists.size <= MAX_CACHED_LISTS) return;
      lists.delete(pool);
    }
  }
  function touch(pool: string, list: CachedList): CachedList {
    list.usedAtMs = now();
    lists.delete(pool);
    lists.set(pool, list);
    dropUnused();
    return list;
  }
  function find({ pool, key }: ListId): CachedList | undefined {
    const list = lists.get(pool);
    return list?.key === key ? touch(pool, list) : undefined;
  }
  return {
    find,
    findOrCreate(id: ListId): CachedList {
      const created = { key: id.key, good: undefined, staleAtMs: 0, usedAtMs: 0, reading: undefined };
      return find(id) ?? touch(id.pool, created);
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

async function fetchModels(dialer: Dialer, query: ModelListQuery): Promise<readonly ListedModel[]> {
  const { address, authorization, loopHeader } = query;
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
    // Not bound to one client, since several can wait for the same list.
    signal: AbortSignal.timeout(LIST_TIMEOUT_MS),
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
