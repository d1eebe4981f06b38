import { randomInt } from 'node:crypto';
import { isKeyAllowed, type Caller, type User } from '../../http/principal.ts';
import type { KeyService, ProviderKey } from '../../keys/service.ts';
import type { Dialer } from '../../lib/net/dialer.ts';
import type { LoopGuard } from '../../lib/net/loop-guard.ts';
import { userOwner, type Owner } from '../../lib/owner.ts';
import { findKeyAddress, toEndpointSlug, type OperatorUpstreams } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';
import { createModelLists, type ListedModel, type ModelLists, type ModelListQuery } from './model-lists.ts';
import type { KnownList } from './model-order.ts';
import {
  resolveRoute,
  findSkipReason,
  type RoutingDecision,
  type RoutableKey,
  type RoutablePool,
  type RoutingResult,
  type SystemDefault,
} from './resolve.ts';
import { restrictDecision } from './token-restrictions.ts';

export type DecryptedGatewayKey = NonNullable<ReturnType<ProviderKey['decrypt']>>;

/** A key of a pool. It is decrypted at most once a request, and only when needed. */
export interface GatewayKey extends RoutableKey {
  provider: string;
  /** Null for the provider's or operator's address. Compared with the token when the key is decrypted. */
  endpoint: string | null;
  /** The encrypted token in the vault. */
  token: string;
  /** Undefined when the token cannot be decrypted or was altered. */
  decrypt(): DecryptedGatewayKey | undefined;
}

/** The user's keys for one provider at one endpoint. */
export interface GatewayPool extends RoutablePool<GatewayKey> {
  /** Unique among all pools of all users. */
  id: string;
  owner: Owner;
}

export type GatewayDecision = RoutingDecision<GatewayKey, GatewayPool>;

export interface RoutingDeps {
  keys: Pick<KeyService, 'readKeysByProvider'>;
  dialer: Dialer;
  loopGuard: LoopGuard;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  system: SystemDefault | null;
}

export interface Routing {
  /**
   * Decides for one request, without advancing the rotation. Waits at most 2 s for a model list that the decision
   * depends on and that was never read; reads older lists again in the background.
   * @param receivedLoopHeader value of the loop guard header of the request.
   */
  decide(
    caller: Caller,
    model: string | undefined,
    receivedLoopHeader: string | undefined,
  ): Promise<GatewayDecision>;
  /**
   * Decides with what is known, without calling an upstream.
   * @returns `listsRead` false when the decision depends on model lists that were never read.
   */
  preview(
    caller: Caller,
    model: string | undefined,
  ): Promise<{ decision: GatewayDecision; listsRead: boolean }>;
  /** The user's pools with the keys that the token may use, by provider and then by the first key that was added. */
  readPools(caller: Caller): Promise<readonly GatewayPool[]>;
  /**
   * The models that a pool serves, from its provider's list, which is read again when it is older than 5 minutes.
   * @returns undefined when no list could be read. Never throws.
   */
  readModels(
    pool: GatewayPool,
    receivedLoopHeader: string | undefined,
  ): Promise<readonly ListedModel[] | undefined>;
  /** Reads a key of a decision again; undefined when it was deleted, moved to another endpoint, or is not usable. */
  findUsableKey(user: User, key: GatewayKey): Promise<GatewayKey | undefined>;
  /** Advances the rotation of the pool that a decision uses. */
  advanceRotation(pool: GatewayPool): void;
}

/** Collects the input of the resolver. */
export function createRouting(deps: RoutingDeps): Routing {
  const rotation = createRotation();
  const lists = createModelLists(deps.dialer);

  async function readPools(caller: Caller): Promise<readonly GatewayPool[]> {
    return toPools(deps.providers, caller, await deps.keys.readKeysByProvider(userOwner(caller.user.id)));
  }

  function resolve(
    { user, token }: Caller,
    model: string | undefined,
    pools: readonly GatewayPool[],
  ): RoutingResult<GatewayKey, GatewayPool> {
    const { decision, dependsOn } = resolveRoute<GatewayKey, GatewayPool>({
      model,
      tier: user.tier,
      providers: deps.providers,
      pools,
      listOf: (pool) => findList(lists, pool),
      system: deps.system,
      policy: { preferredProvider: null },
      now: new Date(),
      rotationIndex: ({ id }) => rotation.peek(id),
    });
    return { decision: restrictDecision(token, decision), dependsOn };
  }

  const isUnread = (pool: GatewayPool) => findList(lists, pool).state === 'unread';

  return {
    readPools,
    async decide(caller, model, receivedLoopHeader) {
      const pools = await readPools(caller);
      const { decision, dependsOn } = resolve(caller, model, pools);
      const read = (pool: GatewayPool) => readList(deps, lists, pool, receivedLoopHeader);
      const unread = dependsOn.filter(isUnread);
      for (const pool of dependsOn)
        if (!unread.includes(pool) && lists.isStale(pool.id, tokensOf(pool))) void read(pool);
      if (unread.length === 0) return decision;
      await Promise.all(unread.map(read));
      return resolve(caller, model, pools).decision;
    },
    async preview(caller, model) {
      const { decision, dependsOn } = resolve(caller, model, await readPools(caller));
      return { decision, listsRead: !dependsOn.some(isUnread) };
    },
    readModels: (pool, receivedLoopHeader) => readList(deps, lists, pool, receivedLoopHeader),
    async findUsableKey(user, { provider, id, endpoint }) {
      const pools = await deps.keys.readKeysByProvider(userOwner(user.id));
      const storedKey = pools.get(provider)?.find((key) => key.id === id);
      const key = storedKey && toGatewayKey(storedKey);
      const isUsable = key?.endpoint === endpoint && findSkipReason(key, new Date()) === undefined;
      return isUsable ? key : undefined;
    },
    advanceRotation({ id }) {
      rotation.advance(id);
    },
  };
}

/**
 * Groups the keys that the caller may use by provider and endpoint. Values that are not stored keys have no endpoint: they are part of every pool of
 * their provider, so that they are reported wherever one of its keys is used.
 */
function toPools(
  providers: readonly Provider[],
  { user, token }: Caller,
  keysByProvider: ReadonlyMap<string, readonly ProviderKey[]>,
): GatewayPool[] {
  // Model lists and the rotation of a part of a pool are its own.
  const part = token?.keyIds ?? [];
  return providers.flatMap((provider) => {
    const keys = (keysByProvider.get(provider.id) ?? []).filter(({ id }) => isKeyAllowed(token, id));
    const unreadable = keys.filter(({ isReadable }) => !isReadable);
    const readable = Map.groupBy(
      keys.filter(({ isReadable }) => isReadable),
      ({ endpoint }) => (provider.requiresEndpoint ? endpoint : null),
    );
    if (readable.size === 0 && unreadable.length > 0) readable.set(null, []);
    return [...readable].map(([endpoint, pool]) => ({
      id: JSON.stringify([user.id, provider.id, endpoint, ...part]),
      owner: userOwner(user.id),
      scope: 'personal' as const,
      provider: provider.id,
      endpointSlug: toEndpointSlug(provider, endpoint),
      keys: [...pool, ...unreadable].map(toGatewayKey),
    }));
  });
}

function toGatewayKey(key: ProviderKey): GatewayKey {
  let cached: { key: DecryptedGatewayKey | undefined } | undefined;
  const decrypt = () => (cached ??= { key: key.decrypt() }).key;
  const { id, provider, label, endpoint, enabled, expiresAt, cooldownUntil, token } = key;
  return {
    id,
    provider,
    label,
    endpoint,
    enabled,
    expiresAt,
    cooldownUntil,
    token,
    decrypt,
    isDecryptable: () => decrypt() !== undefined,
  };
}

/** The last list that was read with a key of the pool, in any state. Unreadable when no key can read one. */
function findList(lists: ModelLists, pool: GatewayPool): KnownList {
  const known = lists.find(pool.id, tokensOf(pool));
  return known.state === 'unread' && findListKey(pool) === undefined ? { state: 'unreadable' } : known;
}

function tokensOf({ keys }: GatewayPool): string[] {
  return keys.map(({ token }) => token);
}

function findListKey(pool: GatewayPool): GatewayKey | undefined {
  const now = new Date();
  return pool.keys.find((key) => findSkipReason(key, now) === undefined);
}

async function readList(
  deps: RoutingDeps,
  lists: ModelLists,
  pool: GatewayPool,
  receivedLoopHeader: string | undefined,
): Promise<readonly ListedModel[] | undefined> {
  const query = toListQuery(deps, pool, receivedLoopHeader);
  return query && (await lists.read(query));
}

/** @returns undefined when no key of the pool can be used. */
function toListQuery(
  { providers, upstreams, loopGuard }: RoutingDeps,
  pool: GatewayPool,
  receivedLoopHeader: string | undefined,
): ModelListQuery | undefined {
  const key = findListKey(pool);
  const decrypted = key?.decrypt();
  const provider = providers.find(({ id }) => id === pool.provider);
  const address = provider && decrypted && findKeyAddress(provider, decrypted.endpoint, upstreams);
  if (key === undefined || decrypted === undefined || provider === undefined || address === undefined)
    return undefined;
  return {
    poolId: pool.id,
    owner: pool.owner,
    token: key.token,
    address,
    authorization: decrypted.secret === '' ? {} : provider.keyTest.authorize(decrypted.secret),
    loopHeader: address.isUserSupplied ? loopGuard.extendHeader(receivedLoopHeader) : null,
  };
}

/** Round robin over the keys of a pool: where the next request starts. After a 401, `serve-from-pool.ts` tries the next key. */
interface Rotation {
  /** The index that the next request will use. */
  peek(poolId: string): number;
  /** Moves to the next index. Called once for each request that used the pool. */
  advance(poolId: string): void;
}

/** When exceeded, the least recently used pool is dropped and later restarts at a random index. */
const MAX_POOLS = 10_000;

/** Keeps a rotation index per pool in this process. Each starts at random, so that several instances spread evenly. */
function createRotation(): Rotation {
  const indexes = new Map<string, number>();
  function peek(poolId: string): number {
    const index = indexes.get(poolId) ?? randomInt(1_000_000);
    indexes.delete(poolId);
    indexes.set(poolId, index);
    const oldest = indexes.keys().next();
    if (indexes.size > MAX_POOLS && !oldest.done) indexes.delete(oldest.value);
    return index;
  }
  return {
    peek,
    advance: (poolId) => {
      indexes.set(poolId, peek(poolId) + 1);
    },
  };
}
