import type { User } from '../http/principal.ts';
import { type KeyService, type PoolKey } from '../keys/service.ts';
import { userOwner } from '../lib/owner.ts';
import type { Provider } from '../providers/provider.ts';
import { resolve, whyUnusable, type Decision, type KeyState, type SystemDefault } from './resolve.ts';
import type { Rotation } from './rotation.ts';

export type OpenedKey = NonNullable<ReturnType<PoolKey['open']>>;

/** A key of a pool as the gateway uses it: decrypted at most once a request, and only when it is looked at. */
export interface GatewayKey extends KeyState {
  provider: string;
  /** As it lies in the vault. */
  token: string;
  /** Undefined when it does not decrypt or was altered. */
  open(): OpenedKey | undefined;
}

export type GatewayDecision = Decision<GatewayKey>;

export interface RoutingDeps {
  keys: KeyService;
  providers: readonly Provider[];
  system: SystemDefault | null;
  rotation: Rotation;
}

export interface Routing {
  /** Decides for one request. Reads the vault and the facts; calls no upstream and takes no turn. */
  decide(user: User, model: string | undefined): Promise<GatewayDecision>;
  /** A key of a decision as it is now; undefined when it has gone or cannot be used any more. */
  findUsable(user: User, key: GatewayKey): Promise<GatewayKey | undefined>;
  /** Ends the turn that a decision was made in. */
  takeTurn(user: User, decision: Extract<GatewayDecision, { kind: 'pool' }>): void;
}

/** Brings together what the resolver needs for a user's request. */
export function createRouting(deps: RoutingDeps): Routing {
  return {
    async decide(user, model) {
      const stored = await deps.keys.readPools(userOwner(user.id));
      return resolve<GatewayKey>({
        model,
        tier: user.tier,
        providers: deps.providers,
        personal: new Map([...stored].map(([provider, pool]) => [provider, pool.map(gatewayKey)])),
        organization: new Map(),
        system: deps.system,
        policy: { preferredProvider: null },
        unhealthy: new Set(),
        now: new Date(),
        turn: (scope, provider) => deps.rotation.peek(poolName(user, scope, provider)),
      });
    },
    async findUsable(user, { provider, id }) {
      const stored = await deps.keys.readPools(userOwner(user.id));
      const now = stored.get(provider)?.find((key) => key.id === id);
      const key = now && gatewayKey(now);
      return key && whyUnusable(key, new Date()) === undefined ? key : undefined;
    },
    takeTurn(user, decision) {
      deps.rotation.advance(poolName(user, decision.scope, decision.provider));
    },
  };
}

function gatewayKey(key: PoolKey): GatewayKey {
  let opened: { key: OpenedKey | undefined } | undefined;
  const open = () => (opened ??= { key: key.open() }).key;
  const { id, provider, label, enabled, expiresAt, setAsideUntil, token } = key;
  return {
    id,
    provider,
    label,
    enabled,
    expiresAt,
    setAsideUntil,
    token,
    open,
    isReadable: () => open() !== undefined,
  };
}

function poolName(user: User, scope: string, provider: string): string {
  return `${scope}:${user.id}:${provider}`;
}
