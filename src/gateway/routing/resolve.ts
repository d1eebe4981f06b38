import type { Provider } from '../../providers/provider.ts';
import { BYOK_TIER, isTierAtLeast, type Tier } from '../../config/tiers.ts';

/** Why a key was skipped. */
export type SkipReason = 'disabled' | 'expired' | 'set_aside' | 'undecryptable';

/** The properties of a key that the decision reads. */
export interface RoutableKey {
  id: string;
  label: string | null;
  enabled: boolean;
  /** ISO 8601; null means never. */
  expiresAt: string | null;
  cooldownUntil: Date | null;
  /** False when the stored token cannot be decrypted or was altered. */
  isDecryptable(): boolean;
}

/** An owner's keys by provider id, in pool order. */
export type PoolsByProvider<Key extends RoutableKey> = ReadonlyMap<string, readonly Key[]>;

/** The operator's key, used when no key of the user serves the request. */
export interface SystemDefault {
  provider: string;
  /** Used for requests that name no model. */
  model: string | null;
  /** Models that the system pays for; `*` means any. */
  models: readonly string[];
}

export interface RoutePolicy {
  preferredProvider: string | null;
}

export interface ResolveInput<Key extends RoutableKey> {
  /** The model of the request; undefined or `default` means the model of the system default. */
  model: string | undefined;
  tier: Tier;
  providers: readonly Provider[];
  personal: PoolsByProvider<Key>;
  /** Keys of the organization that the user acts for; empty without an organization. */
  organization: PoolsByProvider<Key>;
  /** Null when the operator has configured none. */
  system: SystemDefault | null;
  policy: RoutePolicy;
  /** Providers with an open circuit breaker. They are chosen only when the request names them. */
  unhealthyProviders: ReadonlySet<string>;
  now: Date;
  /** Index of the first key to try, modulo the number of usable keys. */
  rotationIndex: (scope: 'personal' | 'organization', provider: string) => number;
}

export interface SkippedKey {
  keyId: string;
  reason: SkipReason;
}

export type RoutingDecision<Key extends RoutableKey> =
  | {
      kind: 'pool';
      scope: 'personal' | 'organization';
      provider: string;
      model: string;
      /** Usable keys in the order in which they are tried. Never empty. */
      keys: readonly Key[];
      skipped: readonly SkippedKey[];
    }
  | { kind: 'system'; provider: string; model: string; reason: 'no_key' | 'tier_required' }
  | {
      kind: 'refused';
      code: 'key_undecryptable' | 'no_usable_key';
      provider: string;
      model: string;
      skipped: readonly SkippedKey[];
    }
  | {
      kind: 'refused';
      code: 'model_not_found' | 'no_default_provider' | 'model_missing';
      provider: null;
      model: string | null;
    };

/**
 * Decides which provider and keys serve a request, whether the system pays instead, or why the request is refused.
 * Pure: no I/O and no state. A non-empty pool excludes the wider payers (personal, organization, system, in this
 * order): when none of its keys is usable, the request is refused, never silently paid by the system.
 */
export function resolveRoute<Key extends RoutableKey>(input: ResolveInput<Key>): RoutingDecision<Key> {
  const requestedModel =
    input.model === undefined || input.model === 'default' ? input.system?.model : input.model;
  if (requestedModel === undefined || requestedModel === null || requestedModel === '') {
    return { kind: 'refused', code: 'model_missing', provider: null, model: null };
  }
  const choice = chooseProvider(input, requestedModel);
  if (choice === undefined) return decideSystem(input, requestedModel, 'no_key');
  const personal = input.personal.get(choice.provider) ?? [];
  if (personal.length > 0) {
    // Below the required tier the personal pool is skipped, and the response names the reason.
    if (!isTierAtLeast(input.tier, BYOK_TIER)) return decideSystem(input, requestedModel, 'tier_required');
    return decidePool(input, 'personal', choice, personal);
  }
  const organization = input.organization.get(choice.provider) ?? [];
  if (organization.length > 0) return decidePool(input, 'organization', choice, organization);
  return decideSystem(input, requestedModel, 'no_key');
}

interface ProviderModel {
  provider: string;
  model: string;
}

/** Order: explicit prefix, model patterns of the catalogue, OpenRouter, the preferred provider. Undefined means the system default. */
function chooseProvider<Key extends RoutableKey>(
  input: ResolveInput<Key>,
  requestedModel: string,
): ProviderModel | undefined {
  const prefixed = splitPrefix(requestedModel);
  const isProviderId = input.providers.some((provider) => provider.id === prefixed?.provider);
  if (
    prefixed !== undefined &&
    isProviderId &&
    (hasPool(input, prefixed.provider) || input.system?.provider === prefixed.provider)
  ) {
    return prefixed;
  }
  const byPattern = input.providers.filter((provider) =>
    provider.modelPatterns.some((pattern) => pattern.test(requestedModel)),
  );
  const candidates = [
    ...byPattern.map((provider) => provider.id),
    'openrouter',
    input.policy.preferredProvider,
  ];
  const provider = candidates.find(
    (id) => id !== null && hasPool(input, id) && !input.unhealthyProviders.has(id),
  );
  return provider === undefined || provider === null ? undefined : { provider, model: requestedModel };
}

/** `openrouter/openai/gpt-4o` becomes `openrouter` and `openai/gpt-4o`: only the first segment is a prefix. */
function splitPrefix(model: string): ProviderModel | undefined {
  const slash = model.indexOf('/');
  if (slash <= 0 || slash === model.length - 1) return undefined;
  return { provider: model.slice(0, slash), model: model.slice(slash + 1) };
}

function hasPool<Key extends RoutableKey>(input: ResolveInput<Key>, provider: string): boolean {
  return [input.personal, input.organization].some((pools) => (pools.get(provider)?.length ?? 0) > 0);
}

function decidePool<Key extends RoutableKey>(
  input: ResolveInput<Key>,
  scope: 'personal' | 'organization',
  choice: ProviderModel,
  pool: readonly Key[],
): RoutingDecision<Key> {
  const checked = pool.map((key) => ({ key, reason: findSkipReason(key, input.now) }));
  const usable = checked.filter(({ reason }) => reason === undefined).map(({ key }) => key);
  const skipped = checked.flatMap(({ key, reason }) =>
    reason === undefined ? [] : [{ keyId: key.id, reason }],
  );
  if (usable.length === 0) {
    const hasUndecryptable = skipped.some(({ reason }) => reason === 'undecryptable');
    return {
      kind: 'refused',
      code: hasUndecryptable ? 'key_undecryptable' : 'no_usable_key',
      ...choice,
      skipped,
    };
  }
  const start = input.rotationIndex(scope, choice.provider) % usable.length;
  return {
    kind: 'pool',
    scope,
    ...choice,
    keys: [...usable.slice(start), ...usable.slice(0, start)],
    skipped,
  };
}

/** Why a key must be skipped; undefined when it is usable. */
export function findSkipReason(key: RoutableKey, now: Date): SkipReason | undefined {
  if (!key.enabled) return 'disabled';
  if (key.expiresAt !== null && new Date(key.expiresAt) <= now) return 'expired';
  if (key.cooldownUntil !== null && key.cooldownUntil > now) return 'set_aside';
  if (!key.isDecryptable()) return 'undecryptable';
  return undefined;
}

/** Without blanks, `@` and `%`: a router could trim or decode a name before it reads it. */
const PLAIN_MODEL_NAME = /^[A-Za-z0-9._~/:-]+$/;

/**
 * True for a name that selects more than a model, as routers such as OpenRouter read it: a paid web search, another
 * order of providers, or settings that are stored in the account. The operator can name such a model, but `*` does not
 * mean it.
 */
function hasRoutingSuffix(model: string): boolean {
  return !PLAIN_MODEL_NAME.test(model) || /:(online|nitro|floor|exacto|extended)([:/]|$)/i.test(model);
}

function decideSystem<Key extends RoutableKey>(
  input: ResolveInput<Key>,
  requestedModel: string,
  reason: 'no_key' | 'tier_required',
): RoutingDecision<Key> {
  const system = input.system;
  if (system === null)
    return { kind: 'refused', code: 'no_default_provider', provider: null, model: requestedModel };
  const prefixed = splitPrefix(requestedModel);
  const model = prefixed?.provider === system.provider ? prefixed.model : requestedModel;
  const isNamed = system.models.includes(model) || model === system.model;
  const isOffered = isNamed || (system.models.includes('*') && !hasRoutingSuffix(model));
  if (!isOffered) return { kind: 'refused', code: 'model_not_found', provider: null, model: requestedModel };
  return { kind: 'system', provider: system.provider, model, reason };
}
