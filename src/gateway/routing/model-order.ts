import { OPERATOR_SLUG } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';

/** The names of one model list. */
export interface ModelNames {
  /** The name as the list spells it: the same name, or the only one that differs in letter case alone. */
  find(name: string): string | undefined;
}

/** `unread`: never read. `unreadable`: reading failed, or no key of the pool can read it. */
export type KnownList = { state: 'read'; names: ModelNames } | { state: 'unread' } | { state: 'unreadable' };

/** What the choice reads of a pool: the keys for one provider at one endpoint. */
export interface NamedPool {
  provider: string;
  /** Names the endpoint in model names: see `toEndpointSlug`. Null where the provider has an address of its own. */
  endpointSlug: string | null;
}

export interface ModelOrderInput<Pool extends NamedPool> {
  model: string;
  providers: readonly Provider[];
  /** The caller's pools, with keys in any state; at most one per provider and endpoint. */
  pools: readonly Pool[];
  /** What is known of a pool's model list. Where nothing is, the provider's catalogue stands in. */
  listOf(pool: Pool): KnownList;
  /** The provider of the system default; null without one. */
  systemProvider: string | null;
  /** Chosen when several lists hold a model, or none. */
  preferredProvider: string | null;
}

export type ModelChoice<Pool> =
  | { kind: 'pool'; pool: Pool; model: string }
  /** The name begins with the provider that only the system serves. */
  | { kind: 'system'; model: string }
  /** No pool of the caller serves the model. */
  | { kind: 'none' }
  /** @property candidates names that are not ambiguous, one per pool. */
  | { kind: 'ambiguous'; candidates: readonly string[] }
  /** The name has the slug of an endpoint that the caller does not have. */
  | { kind: 'unknown_endpoint' };

export interface ModelOrderResult<Pool> {
  choice: ModelChoice<Pool>;
  /** The pools whose lists decide. Where one is unread, the choice is preliminary. */
  dependsOn: readonly Pool[];
}

/** Routers host the models of others: they count only where no other pool lists a model. In this order. */
const ROUTERS: readonly string[] = ['openrouter', 'huggingface'];

/**
 * Chooses the pool that serves a model name, and the name that its provider receives. Pure. The order is that of
 * docs/api.md, "Model names": endpoint, provider segment, pattern, model lists, unlisted rest of a segment, router.
 */
export function chooseModel<Pool extends NamedPool>(input: ModelOrderInput<Pool>): ModelOrderResult<Pool> {
  const segment = splitSegment(input);
  if (segment?.provider.requiresEndpoint === true) {
    const result = chooseByEndpoint(input, segment);
    if (result !== undefined) return result;
  }
  const unlisted = (segment && chooseByKnownSegment(input, segment)) ?? chooseByPattern(input);
  if (unlisted !== undefined) return { choice: unlisted, dependsOn: [] };
  const choice =
    chooseByLists(input) ?? (segment && chooseBySegment(input, segment)) ?? chooseFallback(input);
  return { choice, dependsOn: input.pools };
}

export function createModelNames(names: Iterable<string>): ModelNames {
  const exact = new Set(names);
  // Built when it is needed first, since it needs more memory than the names.
  let byLowerCase: Map<string, string[]> | undefined;
  return {
    find(name) {
      if (exact.has(name)) return name;
      byLowerCase ??= Map.groupBy(exact, (each) => each.toLowerCase());
      const folded = byLowerCase.get(name.toLowerCase());
      return folded?.length === 1 ? folded[0] : undefined;
    },
  };
}

/** The name of a model in a pool, which selects this pool in every case. */
export function toUniqueName({ provider, endpointSlug }: NamedPool, model: string): string {
  return endpointSlug === null ? `${provider}/${model}` : `${provider}:${endpointSlug}/${model}`;
}

interface Segment {
  provider: Provider;
  /** In lower case; null without one. */
  slug: string | null;
  rest: string;
}

/** Splits `provider/rest` and `provider:slug/rest`. Undefined where the first segment is no provider's id. */
function splitSegment({
  model,
  providers,
}: Pick<ModelOrderInput<NamedPool>, 'model' | 'providers'>): Segment | undefined {
  const [, id, slug, rest] = /^([^/:]+)(?::([^/]+))?\/(.+)$/s.exec(model) ?? [];
  const provider = providers.find((each) => each.id === id?.toLowerCase());
  if (provider === undefined || rest === undefined) return undefined;
  if (slug !== undefined && !provider.requiresEndpoint) return undefined;
  return { provider, slug: slug?.toLowerCase() ?? null, rest };
}

function poolsOf<Pool extends NamedPool>({ pools }: ModelOrderInput<Pool>, { id }: Provider): Pool[] {
  return pools.filter(({ provider }) => provider === id);
}

/** `custom:<slug>/...`, or `custom/...` where the endpoint is unambiguous. */
function chooseByEndpoint<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  { provider, slug, rest }: Segment,
): ModelOrderResult<Pool> | undefined {
  const isSystem = input.systemProvider === provider.id;
  const all = poolsOf(input, provider);
  if (slug !== null) {
    const named = all.filter(({ endpointSlug }) => endpointSlug === slug);
    if (named.length > 0) return { choice: chooseOnly(input, named, rest), dependsOn: [] };
    const isOperator = isSystem && slug === OPERATOR_SLUG;
    return {
      choice: isOperator ? { kind: 'system', model: rest } : { kind: 'unknown_endpoint' },
      dependsOn: [],
    };
  }
  if (all.length === 0)
    return isSystem ? { choice: { kind: 'system', model: rest }, dependsOn: [] } : undefined;
  if (all.length === 1) return { choice: chooseOnly(input, all, rest), dependsOn: [] };
  const listing = all.filter((pool) => findListed(input, pool, rest) !== undefined);
  return { choice: chooseOnly(input, listing.length > 0 ? listing : all, rest), dependsOn: all };
}

/** `provider/rest` where the provider is known to have the rest, or itself calls a model by the full name. */
function chooseByKnownSegment<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  { provider, rest }: Segment,
): ModelChoice<Pool> | undefined {
  const [pool] = poolsOf(input, provider);
  if (pool === undefined) return undefined;
  const catalogue = createModelNames(provider.models);
  const list = input.listOf(pool);
  const model =
    catalogue.find(input.model) ??
    catalogue.find(rest) ??
    matchPattern(provider, rest) ??
    (list.state === 'read' ? list.names.find(rest) : undefined) ??
    (list.state === 'unreadable' ? rest : undefined);
  return model === undefined ? undefined : { kind: 'pool', pool, model };
}

/** The provider whose models have such names. Its list is not read. */
function chooseByPattern<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
): ModelChoice<Pool> | undefined {
  for (const provider of input.providers) {
    const model = matchPattern(provider, input.model);
    const [pool] = poolsOf(input, provider);
    if (model !== undefined && pool !== undefined) return { kind: 'pool', pool, model };
  }
  return undefined;
}

/** A full name that lists of the caller's keys hold. */
function chooseByLists<Pool extends NamedPool>(input: ModelOrderInput<Pool>): ModelChoice<Pool> | undefined {
  const listing = input.pools.filter((pool) => findListed(input, pool, input.model) !== undefined);
  const preferred = listing.filter(({ provider }) => provider === input.preferredProvider);
  const hosts = listing.filter(({ provider }) => !ROUTERS.includes(provider));
  const routers = ROUTERS.map((router) => listing.filter(({ provider }) => provider === router));
  const chosen = [preferred, hosts, ...routers].find((pools) => pools.length > 0);
  return chosen && chooseOnly(input, chosen, input.model);
}

/** `provider/rest` with a rest that the provider does not list, since lists lag behind. */
function chooseBySegment<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  { provider, rest }: Segment,
): ModelChoice<Pool> | undefined {
  const [pool] = poolsOf(input, provider);
  if (pool !== undefined) return { kind: 'pool', pool, model: rest };
  if (input.systemProvider !== provider.id) return undefined;
  return { kind: 'system', model: createModelNames(provider.models).find(input.model) ?? rest };
}

function chooseFallback<Pool extends NamedPool>(input: ModelOrderInput<Pool>): ModelChoice<Pool> {
  for (const id of ['openrouter', input.preferredProvider]) {
    const pools = input.pools.filter(({ provider }) => provider === id);
    if (pools.length > 0) return chooseOnly(input, pools, input.model);
  }
  return { kind: 'none' };
}

/** One pool is chosen; of several the request must name one. */
function chooseOnly<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  pools: readonly Pool[],
  model: string,
): ModelChoice<Pool> {
  const [pool, second] = pools;
  if (pool === undefined || second !== undefined)
    return { kind: 'ambiguous', candidates: pools.map((each) => toUniqueName(each, model)) };
  return { kind: 'pool', pool, model: findListed(input, pool, model) ?? model };
}

/** The name as the pool's list spells it. The built-in catalogue stands in for a list that cannot be read. */
function findListed<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  pool: Pool,
  model: string,
): string | undefined {
  const list = input.listOf(pool);
  const provider = input.providers.find(({ id }) => id === pool.provider);
  const names = list.state === 'read' ? list.names : createModelNames(provider?.models ?? []);
  const listed = names.find(model);
  if (listed !== undefined || !ROUTERS.includes(pool.provider)) return listed;
  // Routers list a model once. A suffix selects the way to it: `openai/gpt-oss-120b:groq`, `openai/gpt-4o:nitro`.
  const [, base, suffix] = /^(.+)(:[^:/]+)$/s.exec(model) ?? [];
  const listedBase = base === undefined ? undefined : names.find(base);
  return listedBase === undefined ? undefined : listedBase + (suffix ?? '');
}

/** Providers with patterns name their models in lower case, so a name is tried as it is, then in lower case. */
function matchPattern({ modelPatterns }: Provider, model: string): string | undefined {
  return [model, model.toLowerCase()].find((name) => modelPatterns.some((pattern) => pattern.test(name)));
}
