import type { Provider } from '../../providers/provider.ts';
import { BYOK_TIER, isTierAtLeast, type Tier } from '../../config/tiers.ts';
import {
  chooseModel,
  createModelNames,
  toUniqueName,
  type KnownList,
  type ModelChoice,
  type NamedPool,
} from './model-order.ts';
import { ANY_MODEL, listCallerModels } from './caller-models.ts';
import { findNearNames } from './near-names.ts';

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

/** The keys that one payer has for one provider at one endpoint. A request uses the keys of one pool only. */
export interface RoutablePool<Key extends RoutableKey> extends NamedPool {
  scope: 'personal' | 'organization';
  /** In the order in which they were added; in any state. */
  keys: readonly Key[];
}

/** The operator's key, used when no key of the user serves the request. */
export interface SystemDefault {
  provider: string;
  /** Used for requests that name no model. */
  model: string | null;
  /** Models that the system pays for; {@link ANY_MODEL} means any. */
  models: readonly string[];
}

export interface RoutePolicy {
  preferredProvider: string | null;
}

export interface ResolveInput<Pool> {
  /** The model of the request; undefined or `default` means the model of the system default. */
  model: string | undefined;
  tier: Tier;
  providers: readonly Provider[];
  /** Of the user, and of the organization that the user acts for. */
  pools: readonly Pool[];
  /** The last model list that was read with a key of the pool. */
  listOf(pool: Pool): KnownList;
  /** Null when the operator has configured none. */
  system: SystemDefault | null;
  policy: RoutePolicy;
  now: Date;
  /** Index of the first key to try, modulo the number of usable keys. */
  rotationIndex(pool: Pool): number;
}

export interface SkippedKey {
  keyId: string;
  reason: SkipReason;
}

export type RoutingDecision<Key extends RoutableKey, Pool extends RoutablePool<Key>> =
  | {
      kind: 'pool';
      pool: Pool;
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
      pool: Pool;
      provider: string;
      model: string;
      skipped: readonly SkippedKey[];
    }
  | {
      kind: 'refused';
      /** The codes that end with `_of_token` are restrictions of a personal token. */
      code: 'no_default_provider' | 'model_missing' | 'model_not_of_token' | 'no_key_of_token';
      provider: null;
      model: string | null;
    }
  | {
      kind: 'refused';
      code: 'ambiguous_model' | 'model_not_found';
      provider: null;
      model: string;
      /** Names to choose from: of an ambiguous model, one per pool; else models of the caller with a similar name. */
      candidates: readonly string[];
    };

export interface RoutingResult<Key extends RoutableKey, Pool extends RoutablePool<Key>> {
  decision: RoutingDecision<Key, Pool>;
  /** The pools whose model lists decide. Where one was never read, the decision is preliminary. */
  dependsOn: readonly Pool[];
}

/**
 * Decides which provider and keys serve a request, whether the system pays instead, or why the request is refused.
 * Pure: no I/O and no state. A pool with keys in any state excludes the wider payers (personal, organization, system,
 * in this order): when none of its keys is usable, the request is refused, never silently paid by the system.
 * Below the tier for keys of one's own, personal pools are skipped and no model list is needed.
 */
export function resolveRoute<Key extends RoutableKey, Pool extends RoutablePool<Key>>(
  input: ResolveInput<Pool>,
): RoutingResult<Key, Pool> {
  const model = input.model === undefined || input.model === 'default' ? input.system?.model : input.model;
  if (model === undefined || model === null || model === '')
    return {
      decision: { kind: 'refused', code: 'model_missing', provider: null, model: null },
      dependsOn: [],
    };
  const canUsePersonal = isTierAtLeast(input.tier, BYOK_TIER);
  const pools = dropShadowed(input.pools);
  const { choice, dependsOn } = chooseModel<Pool>({
    model,
    providers: input.providers,
    pools,
    listOf: (pool) => (canUsePersonal ? input.listOf(pool) : { state: 'unreadable' }),
    system: input.system,
    preferredProvider: input.policy.preferredProvider,
  });
  const decision = decidePayer<Key, Pool>(input, model, choice, canUsePersonal);
  return {
    decision:
      decision.kind === 'refused' && decision.code === 'model_not_found'
        ? {
            ...decision,
            candidates: findNearNames(
              model,
              listCallerModels({ ...input, pools: canUsePersonal ? pools : [] }),
            ),
          }
        : decision,
    dependsOn: canUsePersonal ? dependsOn : [],
  };
}

function decidePayer<Key extends RoutableKey, Pool extends RoutablePool<Key>>(
  input: ResolveInput<Pool>,
  model: string,
  choice: ModelChoice<Pool>,
  canUsePersonal: boolean,
): RoutingDecision<Key, Pool> {
  switch (choice.kind) {
    case 'none':
      return decideSystem(input, model, model, 'no_key');
    case 'system':
      return decideSystem(input, model, choice.model, 'no_key');
    case 'unknown_endpoint':
      return modelNotFound(model);
    case 'ambiguous': {
      const [pool] = choice.pools;
      if (!canUsePersonal && pool !== undefined) return decideWithoutPool(input, model, { ...choice, pool });
      const candidates = choice.pools.map((each) => toUniqueName(each, choice.model));
      return { kind: 'refused', code: 'ambiguous_model', provider: null, model, candidates };
    }
    case 'pool':
      if (choice.pool.scope === 'personal' && !canUsePersonal) return decideWithoutPool(input, model, choice);
      return decidePool(input, choice.pool, choice.model);
  }
}

/** Below the tier for keys of one's own. The name of a user's endpoint is sent to no other provider. */
function decideWithoutPool(
  input: Pick<ResolveInput<never>, 'system'>,
  requestedModel: string,
  { pool, model }: { pool: NamedPool; model: string },
): SystemDecision {
  if (pool.provider === input.system?.provider)
    return decideSystem(input, requestedModel, model, 'tier_required');
  if (pool.endpointSlug !== null) return modelNotFound(requestedModel);
  return decideSystem(input, requestedModel, requestedModel, 'tier_required');
}

/** A personal pool excludes the organization's for the same provider and endpoint. */
function dropShadowed<Pool extends NamedPool & { scope: string }>(pools: readonly Pool[]): Pool[] {
  const personal = pools.filter(({ scope }) => scope === 'personal').map((pool) => toUniqueName(pool, ''));
  return pools.filter((pool) => pool.scope === 'personal' || !personal.includes(toUniqueName(pool, '')));
}

function decidePool<Key extends RoutableKey, Pool extends RoutablePool<Key>>(
  input: ResolveInput<Pool>,
  pool: Pool,
  model: string,
): RoutingDecision<Key, Pool> {
  const checked = pool.keys.map((key) => ({ key, reason: findSkipReason(key, input.now) }));
  const usable = checked.filter(({ reason }) => reason === undefined).map(({ key }) => key);
  const skipped = checked.flatMap(({ key, reason }) =>
    reason === undefined ? [] : [{ keyId: key.id, reason }],
  );
  const chosen = { pool, provider: pool.provider, model, skipped };
  if (usable.length === 0) {
    const hasUndecryptable = skipped.some(({ reason }) => reason === 'undecryptable');
    return { kind: 'refused', code: hasUndecryptable ? 'key_undecryptable' : 'no_usable_key', ...chosen };
  }
  const start = input.rotationIndex(pool) % usable.length;
  return { kind: 'pool', ...chosen, keys: [...usable.slice(start), ...usable.slice(0, start)] };
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
function selectsMoreThanModel(model: string): boolean {
  // A proxy can put the name into a path.
  const hasPathSegment = model.split('/').some((segment) => /^\.{0,2}$/.test(segment));
  return (
    hasPathSegment ||
    !PLAIN_MODEL_NAME.test(model) ||
    /:(online|nitro|floor|exacto|extended)([:/]|$)/i.test(model)
  );
}

/** Without the names to choose from, which {@link resolveRoute} adds. */
function modelNotFound(model: string): SystemDecision {
  return { kind: 'refused', code: 'model_not_found', provider: null, model, candidates: [] };
}

type SystemDecision = Exclude<RoutingDecision<never, never>, { pool: unknown }>;

/**
 * @param requestedModel as the request names it; the operator can list such a name.
 * @param model as the system's provider names it.
 */
function decideSystem(
  { system }: Pick<ResolveInput<never>, 'system'>,
  requestedModel: string,
  model: string,
  reason: 'no_key' | 'tier_required',
): SystemDecision {
  if (system === null)
    return { kind: 'refused', code: 'no_default_provider', provider: null, model: requestedModel };
  const offered = createModelNames([...system.models, ...(system.model === null ? [] : [system.model])]);
  const named = offered.find(requestedModel) ?? offered.find(model);
  if (named !== undefined && named !== ANY_MODEL)
    return { kind: 'system', provider: system.provider, model: named, reason };
  if (!system.models.includes(ANY_MODEL) || selectsMoreThanModel(model)) return modelNotFound(requestedModel);
  return { kind: 'system', provider: system.provider, model, reason };
}
