import type { Provider } from '../providers/provider.ts';
import { BYOK_TIER, reachesTier, type Tier } from '../tiers.ts';

/** Why a key was passed over. */
export type SkipReason = 'disabled' | 'expired' | 'set_aside' | 'undecryptable';

/** What the choice needs to know of a key. */
export interface KeyState {
  id: string;
  label: string | null;
  enabled: boolean;
  /** ISO 8601; null = never. */
  expiresAt: string | null;
  setAsideUntil: Date | null;
  /** False when the stored token does not open or was altered. */
  isReadable(): boolean;
}

/** An owner's keys by provider id, each pool in its order. */
export type Pools<Key extends KeyState> = ReadonlyMap<string, readonly Key[]>;

/** Who pays when no own key serves: what the operator has set up. */
export interface SystemDefault {
  provider: string;
  /** Serves requests that name no model. */
  model: string | null;
  /** Models it pays for; `*` = any. */
  models: readonly string[];
}

/** A user's routing policy. */
export interface RoutePolicy {
  preferredProvider: string | null;
}

export interface ResolveInput<Key extends KeyState> {
  /** As the request names it; undefined or `default` = the system default's model. */
  model: string | undefined;
  tier: Tier;
  providers: readonly Provider[];
  personal: Pools<Key>;
  /** Keys of the organization that the user acts for; empty when there is none. */
  organization: Pools<Key>;
  /** Null when the operator has set none. */
  system: SystemDefault | null;
  policy: RoutePolicy;
  /** Provider ids whose circuit is open: chosen only when the request names them. */
  unhealthy: ReadonlySet<string>;
  now: Date;
  /** Turn of the rotation for a pool. */
  turn: (scope: 'personal' | 'organization', provider: string) => number;
}

export interface Skipped {
  keyId: string;
  reason: SkipReason;
}

export type Decision<Key extends KeyState> =
  | {
      kind: 'pool';
      scope: 'personal' | 'organization';
      provider: string;
      model: string;
      /** Usable keys, the one whose turn it is first. Never empty. */
      keys: readonly Key[];
      skipped: readonly Skipped[];
    }
  | { kind: 'system'; provider: string; model: string; reason: 'no_key' | 'tier_required' }
  | {
      kind: 'refused';
      code: 'key_undecryptable' | 'no_usable_key';
      provider: string;
      model: string;
      skipped: readonly Skipped[];
    }
  | {
      kind: 'refused';
      code: 'model_not_found' | 'no_default_provider' | 'model_missing';
      provider: null;
      model: string | null;
    };

/**
 * Decides which provider and which keys answer a request, or who pays instead, or why nobody does.
 * Pure: it calls nobody and changes nothing. A non-empty narrower pool is exclusive: a pool whose keys all
 * fail is refused, never silently paid by the system.
 */
export function resolve<Key extends KeyState>(input: ResolveInput<Key>): Decision<Key> {
  const asked = input.model === undefined || input.model === 'default' ? input.system?.model : input.model;
  if (asked === undefined || asked === null || asked === '') {
    return { kind: 'refused', code: 'model_missing', provider: null, model: null };
  }
  const choice = chooseProvider(input, asked);
  if (choice === undefined) return systemDecision(input, asked, 'no_key');
  const personal = input.personal.get(choice.provider) ?? [];
  if (personal.length > 0) {
    // Below the tier the own pool is passed over, and the answer says why somebody else paid.
    if (!reachesTier(input.tier, BYOK_TIER)) return systemDecision(input, asked, 'tier_required');
    return poolDecision(input, 'personal', choice, personal);
  }
  const shared = input.organization.get(choice.provider) ?? [];
  if (shared.length > 0) return poolDecision(input, 'organization', choice, shared);
  return systemDecision(input, asked, 'no_key');
}

interface Choice {
  provider: string;
  model: string;
}

/** Model -> provider: explicit prefix, patterns of the catalogue, OpenRouter, the preferred provider; undefined = the system default. */
function chooseProvider<Key extends KeyState>(input: ResolveInput<Key>, asked: string): Choice | undefined {
  const prefixed = splitPrefix(asked);
  const isNamed = input.providers.some((provider) => provider.id === prefixed?.provider);
  if (
    prefixed !== undefined &&
    isNamed &&
    (isKeyed(input, prefixed.provider) || input.system?.provider === prefixed.provider)
  ) {
    return prefixed;
  }
  const byPattern = input.providers.filter((provider) =>
    provider.modelPatterns.some((pattern) => pattern.test(asked)),
  );
  const inOrder = [...byPattern.map((provider) => provider.id), 'openrouter', input.policy.preferredProvider];
  const provider = inOrder.find((id) => id !== null && isKeyed(input, id) && !input.unhealthy.has(id));
  return provider === undefined || provider === null ? undefined : { provider, model: asked };
}

/** `openrouter/openai/gpt-4o` -> `openrouter` and `openai/gpt-4o`: the first segment alone is a prefix. */
function splitPrefix(model: string): Choice | undefined {
  const slash = model.indexOf('/');
  if (slash <= 0 || slash === model.length - 1) return undefined;
  return { provider: model.slice(0, slash), model: model.slice(slash + 1) };
}

function isKeyed<Key extends KeyState>(input: ResolveInput<Key>, provider: string): boolean {
  return [input.personal, input.organization].some((pools) => (pools.get(provider)?.length ?? 0) > 0);
}

function poolDecision<Key extends KeyState>(
  input: ResolveInput<Key>,
  scope: 'personal' | 'organization',
  choice: Choice,
  pool: readonly Key[],
): Decision<Key> {
  const judged = pool.map((key) => ({ key, reason: whyUnusable(key, input.now) }));
  const usable = judged.filter(({ reason }) => reason === undefined).map(({ key }) => key);
  const skipped = judged.flatMap(({ key, reason }) =>
    reason === undefined ? [] : [{ keyId: key.id, reason }],
  );
  if (usable.length === 0) {
    const isDamaged = skipped.some(({ reason }) => reason === 'undecryptable');
    return { kind: 'refused', code: isDamaged ? 'key_undecryptable' : 'no_usable_key', ...choice, skipped };
  }
  const start = input.turn(scope, choice.provider) % usable.length;
  return {
    kind: 'pool',
    scope,
    ...choice,
    keys: [...usable.slice(start), ...usable.slice(0, start)],
    skipped,
  };
}

/** Why a key is passed over; undefined when it can be used. */
export function whyUnusable(key: KeyState, now: Date): SkipReason | undefined {
  if (!key.enabled) return 'disabled';
  if (key.expiresAt !== null && new Date(key.expiresAt) <= now) return 'expired';
  if (key.setAsideUntil !== null && key.setAsideUntil > now) return 'set_aside';
  if (!key.isReadable()) return 'undecryptable';
  return undefined;
}

function systemDecision<Key extends KeyState>(
  input: ResolveInput<Key>,
  asked: string,
  reason: 'no_key' | 'tier_required',
): Decision<Key> {
  const system = input.system;
  if (system === null) return { kind: 'refused', code: 'no_default_provider', provider: null, model: asked };
  const prefixed = splitPrefix(asked);
  const model = prefixed?.provider === system.provider ? prefixed.model : asked;
  const isServed = system.models.includes('*') || system.models.includes(model) || model === system.model;
  if (!isServed) return { kind: 'refused', code: 'model_not_found', provider: null, model: asked };
  return { kind: 'system', provider: system.provider, model, reason };
}
