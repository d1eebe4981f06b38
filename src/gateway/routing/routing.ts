import { randomInt } from 'node:crypto';
import type { User } from '../../http/principal.ts';
import type { KeyService, ProviderKey } from '../../keys/service.ts';
import { userOwner } from '../../lib/owner.ts';
import type { Provider } from '../../providers/provider.ts';
import {
  resolveRoute,
  findSkipReason,
  type RoutingDecision,
  type RoutableKey,
  type SystemDefault,
} from './resolve.ts';

export type DecryptedGatewayKey = NonNullable<ReturnType<ProviderKey['decrypt']>>;

/** A key of a pool. It is decrypted at most once a request, and only when needed. */
export interface GatewayKey extends RoutableKey {
  provider: string;
  /** The encrypted token in the vault. */
  token: string;
  /** Undefined when the token cannot be decrypted or was altered. */
  decrypt(): DecryptedGatewayKey | undefined;
}

export type GatewayDecision = RoutingDecision<GatewayKey>;

export interface RoutingDeps {
  keys: KeyService;
  providers: readonly Provider[];
  system: SystemDefault | null;
}

export interface Routing {
  /** Decides for one request. Reads the vault and the key status; calls no upstream and does not advance the rotation. */
  decide(user: User, model: string | undefined): Promise<GatewayDecision>;
  /** Reads a key of a decision again; undefined when it was deleted or is not usable any more. */
  findUsableKey(user: User, key: GatewayKey): Promise<GatewayKey | undefined>;
  /** Advances the rotation of the pool that a decision uses. */
  advanceRotation(user: User, decision: Extract<GatewayDecision, { kind: 'pool' }>): void;
}

/** Collects the input of the resolver. */
export function createRouting(deps: RoutingDeps): Routing {
  const rotation = createRotation();
  return {
    async decide(user, model) {
      const pools = await deps.keys.readPools(userOwner(user.id));
      return resolveRoute<GatewayKey>({
        model,
        tier: user.tier,
        providers: deps.providers,
        personal: new Map([...pools].map(([provider, pool]) => [provider, pool.map(toGatewayKey)])),
        organization: new Map(),
        system: deps.system,
        policy: { preferredProvider: null },
        unhealthyProviders: new Set(),
        now: new Date(),
        rotationIndex: (scope, provider) => rotation.peek(toPoolId(user, scope, provider)),
      });
    },
    async findUsableKey(user, { provider, id }) {
      const pools = await deps.keys.readPools(userOwner(user.id));
      const storedKey = pools.get(provider)?.find((key) => key.id === id);
      const key = storedKey && toGatewayKey(storedKey);
      return key && findSkipReason(key, new Date()) === undefined ? key : undefined;
    },
    advanceRotation(user, decision) {
      rotation.advance(toPoolId(user, decision.scope, decision.provider));
    },
  };
}

function toGatewayKey(key: ProviderKey): GatewayKey {
  let cached: { key: DecryptedGatewayKey | undefined } | undefined;
  const decrypt = () => (cached ??= { key: key.decrypt() }).key;
  const { id, provider, label, enabled, expiresAt, cooldownUntil, token } = key;
  return {
    id,
    provider,
    label,
    enabled,
    expiresAt,
    cooldownUntil,
    token,
    decrypt,
    isDecryptable: () => decrypt() !== undefined,
  };
}

function toPoolId(user: User, scope: string, provider: string): string {
  return `${scope}:${user.id}:${provider}`;
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
