import type { PrincipalToken } from '../../http/principal.ts';
import { toUniqueName, type NamedPool } from './model-order.ts';
import { fieldNotAllowed, foldName } from '../admission/request-body.ts';
import type { RoutableKey, RoutablePool, RoutingDecision } from './resolve.ts';

/** The restrictions of a personal token that concern routing. */
type Restrictions = Pick<PrincipalToken, 'models' | 'keyIds'>;

/** True unless a token names its keys: the system default is another key. */
export function isSystemAllowed(token: Restrictions | null): boolean {
  return (token?.keyIds ?? null) === null;
}

/**
 * True unless a token names its models and this is none of them. Compared is `provider/model`, and for an endpoint of
 * the user also the name with its endpoint. A pattern is a literal or has one trailing `*`.
 */
export function isModelAllowed(token: Restrictions | null, pool: NamedPool, model: string): boolean {
  return [`${pool.provider}/${model}`, toUniqueName(pool, model)].some((name) => isNameAllowed(token, name));
}

/** Fields by which providers and routers serve, or fall back to, another model than `model`. */
const OTHER_MODEL_FIELDS: ReadonlySet<string> = new Set([
  ...['models', 'fallbacks', 'fallback_models', 'route', 'preset', 'plugins', 'prompt'],
]);

/** @throws AppError `field_not_allowed` for a field that names other models, when the token is limited to models. */
export function refuseOtherModels(token: Restrictions | null, fieldNames: readonly string[]): void {
  if ((token?.models ?? null) === null) return;
  const field = fieldNames.find((name) => OTHER_MODEL_FIELDS.has(foldName(name)));
  if (field !== undefined) throw fieldNotAllowed(field);
}

function isNameAllowed(token: Restrictions | null, name: string): boolean {
  const patterns = token?.models ?? null;
  return patterns === null || patterns.some((pattern) => matchesPattern(pattern, name));
}

function matchesPattern(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

/** Refuses a decision that the token does not allow. Its keys were selected before the decision. */
export function restrictDecision<Key extends RoutableKey, Pool extends RoutablePool<Key>>(
  token: Restrictions | null,
  decision: RoutingDecision<Key, Pool>,
): RoutingDecision<Key, Pool> {
  const { provider, model } = decision;
  if (provider !== null) {
    const pool = 'pool' in decision ? decision.pool : { provider, endpointSlug: null };
    if (!isModelAllowed(token, pool, model))
      return { kind: 'refused', code: 'model_not_of_token', provider: null, model };
  }
  if (decision.kind === 'refused' && 'candidates' in decision)
    return { ...decision, candidates: decision.candidates.filter((name) => isNameAllowed(token, name)) };
  const needsSystem =
    decision.kind === 'system' || (decision.kind === 'refused' && decision.code === 'no_default_provider');
  if (needsSystem && !isSystemAllowed(token))
    return { kind: 'refused', code: 'no_key_of_token', provider: null, model };
  return decision;
}
