import type { Owner } from '../../lib/owner.ts';
import type { Dialer, UpstreamResponse } from '../../lib/net/dialer.ts';
import { LOOP_HEADER } from '../../lib/net/loop-guard.ts';
import { MAX_JSON_SIZE, parseJson } from '../../lib/json.ts';
import { discardBody, upstreamMalformed, readBoundedBody } from '../../lib/net/upstream-body.ts';
import type { UpstreamAddress } from '../../providers/address.ts';
import { findHiddenCharacter } from '../../lib/visible-text.ts';
import { StrictUpstreamModelList, UpstreamModelList, type UpstreamListedModel } from '../schema.ts';
import { createModelNames, type KnownList, type ModelNames } from './model-order.ts';

/** A model in an upstream's list. */
export interface ListedModel {
  id: string;
  /** Epoch seconds. */
  created?: number | undefined;
  owned_by?: string | undefined;
  /** As the provider shows it to people. */
  display_name?: string | undefined;
}

export interface ModelListQuery {
  /** Of the key's pool. One list is kept for each pool: the last that was read. */
  poolId: string;
  /** Of the pool; null for the system's. */
  owner: Owner | null;
  /**
   * The encrypted token of one key of the pool, which identifies one version of the key; never the key itself. A list is
   * not shown for another key, which may serve other models.
   */
  token: string;
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
  /**
   * What is known without a call: the last list that was read, however old.
   * @param tokens those whose list counts, as in {@link ModelListQuery}.
   */
  find(poolId: string, tokens: readonly string[]): KnownList;
  /** True when a list should be read again: it is older than 5 minutes, or reading failed more than 30 s ago. */
  isStale(poolId: string, tokens: readonly string[]): boolean;
  /**
   * The list, read again when it is stale. Calls for the same key share one request, which ends after 2 s.
   * @returns the last list that was read with this key when reading fails; undefined when none was. Never throws.
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
/** More than the pools that an owner can have at once, so that changed endpoints drop no lists of other owners. */
const MAX_CACHED_LISTS_PER_OWNER = 40;
const MAX_LIST_BYTES = 8 * 1024 * 1024;
/** From an address that a user supplied, where many lists can be read at once. */
const USER_ENDPOINT_LIMITS = {
  bytes: 512 * 1024,
  json: { ...MAX_JSON_SIZE, members: 30_000, elements: 30_000 },
};
const MAX_USER_ENDPOINT_MODELS = 500;
const MAX_USER_ENDPOINT_BYTES = 128 * 1024;

interface CachedList {
  owner: Owner | null;
  /** The last list that was read; undefined when none was. Another key replaces it only by a list of its own. */
  good: { token: string; models: readonly ListedModel[]; names: ModelNames } | undefined;
  /** The last attempt to read it. */
  attempt: { token: string; staleAtMs: number; reading: Promise<void> | undefined } | undefined;
  usedAtMs: number;
}

export function createModelLists(dialer: Dialer, now: () => number = Date.now): ModelLists {
  const cache = createListCache(now);

  async function refresh(query: ModelListQuery, list: CachedList): Promise<void> {
    const attempt: NonNullable<CachedList['attempt']> = {
      token: query.token,
      staleAtMs: 0,
      reading: undefined,
    };
    list.attempt = attempt;
    attempt.reading = (async () => {
      try {
        const models = await fetchModels(dialer, query);
        const kept = query.address.isUserSupplied ? limitModels(models) : models;
        list.good = { token: query.token, models: kept, names: createModelNames(kept.map(({ id }) => id)) };
        attempt.staleAtMs = now() + FRESH_MS;
      } catch {
        attempt.staleAtMs = now() + RETRY_MS;
      }
      attempt.reading = undefined;
    })();
    await attempt.reading;
  }

  return {
    find(poolId, tokens) {
      const { good, attempt } = cache.find(poolId) ?? {};
      if (good !== undefined && tokens.includes(good.token)) return { state: 'read', names: good.names };
      const hasFailed =
        attempt !== undefined && attempt.reading === undefined && tokens.includes(attempt.token);
      return { state: hasFailed ? 'unreadable' : 'unread' };
    },
    isStale(poolId, tokens) {
      const attempt = cache.find(poolId)?.attempt;
      return attempt === undefined || !tokens.includes(attempt.token) || attempt.staleAtMs <= now();
    },
    async read(query) {
      const list = cache.findOrCreate(query.poolId, query.owner);
      const { attempt } = list;
      if (attempt?.token !== query.token || (attempt.reading === undefined && attempt.staleAtMs <= now()))
        await refresh(query, list);
      else await attempt.reading;
      return list.good?.token === query.token ? list.good.models : undefined;
    },
  };
}

/** Lists by pool, the least recently used first. */
function createListCache(now: () => number) {
  const lists = new Map<string, CachedList>();
  function dropUnused(): void {
    for (const [poolId, { usedAtMs }] of lists) {
      if (usedAtMs + UNUSED_MS > now() && lists.size <= MAX_CACHED_LISTS) return;
      lists.delete(poolId);
    }
  }
  function touch(poolId: string, list: CachedList): CachedList {
    list.usedAtMs = now();
    lists.delete(poolId);
    lists.set(poolId, list);
    dropUnused();
    return list;
  }
  function find(poolId: string): CachedList | undefined {
    const list = lists.get(poolId);
    return list && touch(poolId, list);
  }
  function dropExcessOf(owner: Owner | null): void {
    const ofOwner = [...lists].filter(([, list]) => list.owner === owner).map(([poolId]) => poolId);
    for (const poolId of ofOwner.slice(0, -MAX_CACHED_LISTS_PER_OWNER)) lists.delete(poolId);
  }
  function create(poolId: string, owner: Owner | null): CachedList {
    const list = touch(poolId, { owner, good: undefined, attempt: undefined, usedAtMs: 0 });
    dropExcessOf(owner);
    return list;
  }
  return {
    find,
    findOrCreate: (poolId: string, owner: Owner | null) => find(poolId) ?? create(poolId, owner),
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
    return await readModels(response, address.isUserSupplied);
  } finally {
    discardBody(response.body);
  }
}

async function readModels(
  response: UpstreamResponse,
  isUserSupplied: boolean,
): Promise<readonly ListedModel[]> {
  if (response.status !== 200)
    throw upstreamMalformed(`The provider responded with status ${response.status}.`);
  const limits = isUserSupplied ? USER_ENDPOINT_LIMITS : { bytes: MAX_LIST_BYTES, json: MAX_JSON_SIZE };
  const value = parseJson(await readBoundedBody(response.body, limits.bytes), limits.json);
  // Many services respond with `{data: [{id}]}`, so from a private address the `object` members must match too.
  const { data } = (response.isFromPublicAddress ? UpstreamModelList : StrictUpstreamModelList).parse(value);
  return data.map(toListedModel);
}

function toListedModel({ created_at, display_name, ...model }: UpstreamListedModel): ListedModel {
  const created = model.created ?? (created_at === undefined ? undefined : Date.parse(created_at) / 1_000);
  const isShown = display_name !== undefined && findHiddenCharacter(display_name) === undefined;
  return { ...model, created, ...(isShown ? { display_name } : {}) };
}
