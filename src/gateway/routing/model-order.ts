import { OPERATOR_SLUG } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';

/** The names of one model list. */
export interface ModelNames {
  /** The name as the list spells it: the same name, or the only one that differs in letter case alone. */
  find(name: string): string | undefined;
  /** All names, as the list spells them. */
  all(): Iterable<string>;
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
  /** The system default; null without one. */
  system: { provider: string; model: string | null } | null;
  /** Chosen when several lists hold a model, or none. */
  preferredProvider: string | null;
}

export type ModelChoice<Pool> =
  | { kind: 'pool'; pool: Pool; model: string }
  /** The name begins with the provider that only the system serves, or is one of its models. */
  | { kind: 'system'; model: string }
  /** No pool of the caller serves the model. */
  | { kind: 'none' }
  /** Each of the pools could serve the model, which they know under this name. */
  | { kind: 'ambiguous'; pools: readonly Pool[]; model: string }
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
  const decided =
    (segment && chooseByKnownSegment(input, segment)) ??
    chooseByPattern(input) ??
    (segment && chooseByListOfSegment(input, segment));
  if (decided !== undefined) return decided;
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
    all: () => exact.values(),
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
  const all = poolsOf(input, provider);
  const named = slug === null ? all : all.filter(({ endpointSlug }) => endpointSlug === slug);
  if (named.length === 0) {
    if (slug === null) return undefined;
    const isOperator = input.system?.provider === provider.id && slug === OPERATOR_SLUG;
    const choice = isOperator
      ? ({ kind: 'system', model: rest } as const)
      : ({ kind: 'unknown_endpoint' } as const);
    return { choice, dependsOn: [] };
  }
  if (named.length === 1) return { choice: chooseOnly(input, named, rest), dependsOn: [] };
  // An endpoint whose list cannot be read could have the model too: its outage must neither move a prompt to another
  // endpoint nor, where no list has the model, draw one to it.
  const hasModel = (pool: Pool) => findRead(input, pool, rest) !== undefined;
  const couldHaveModel = (pool: Pool) => input.listOf(pool).state !== 'read' || hasModel(pool);
  const possible = named.some(hasModel) ? named.filter(couldHaveModel) : named;
  return { choice: chooseOnly(input, possible, rest), dependsOn: named };
}

/**
 * `provider/rest` where the provider is known to have such a model, or itself calls a model by the full name. A list that
 * was read gives the spelling only.
 */
function chooseByKnownSegment<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  { provider, rest }: Segment,
): ModelOrderResult<Pool> | undefined {
  const [pool] = poolsOf(input, provider);
  if (pool === undefined) return undefined;
  const catalogue = createModelNames(provider.models);
  const fullName = catalogue.find(input.model);
  const known = fullName ?? catalogue.find(rest) ?? matchPattern(provider, rest);
  if (known === undefined) return undefined;
  const model = fullName ?? findRead(input, pool, rest) ?? known;
  return { choice: { kind: 'pool', pool, model }, dependsOn: [] };
}

/** `provider/rest` where the last list of the provider has the rest, or its list cannot be read. */
function chooseByListOfSegment<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  { provider, rest }: Segment,
): ModelOrderResult<Pool> | undefined {
  const [pool] = poolsOf(input, provider);
  if (pool === undefined) return undefined;
  const model = findRead(input, pool, rest) ?? (input.listOf(pool).state === 'unreadable' ? rest : undefined);
  return model === undefined ? undefined : { choice: { kind: 'pool', pool, model }, dependsOn: [pool] };
}

/** The provider whose models have such names. Its list is not read. */
function chooseByPattern<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
): ModelOrderResult<Pool> | undefined {
  for (const provider of input.providers) {
    const matched = matchPattern(provider, input.model);
    const [pool] = poolsOf(input, provider);
    if (matched === undefined || pool === undefined) continue;
    const model = findRead(input, pool, input.model) ?? matched;
    return { choice: { kind: 'pool', pool, model }, dependsOn: [] };
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
  if (input.system?.provider !== provider.id) return undefined;
  const model = createModelNames(provider.models).find(input.model) ?? findModelOf(provider, rest) ?? rest;
  return { kind: 'system', model };
}

function chooseFallback<Pool extends NamedPool>(input: ModelOrderInput<Pool>): ModelChoice<Pool> {
  const { system, model } = input;
  const provider = input.providers.find(({ id }) => id === system?.provider);
  const ofSystem = provider && findModelOf(provider, model, system?.model ?? null);
  if (provider !== undefined && ofSystem !== undefined) {
    // Of endpoints, only the operator's is the one that the system default names.
    const pool = poolsOf(input, provider).find(
      ({ endpointSlug }) => (endpointSlug ?? OPERATOR_SLUG) === OPERATOR_SLUG,
    );
    return pool === undefined ? { kind: 'system', model: ofSystem } : { kind: 'pool', pool, model: ofSystem };
  }
  for (const id of ['openrouter', input.preferredProvider]) {
    const pools = input.pools.filter((pool) => pool.provider === id);
    if (pools.length > 0) return chooseOnly(input, pools, model);
  }
  return { kind: 'none' };
}

/** The name as the provider spells it: of the default model, in its catalogue, or by its patterns. */
function findModelOf(
  provider: Provider,
  model: string,
  defaultModel: string | null = null,
): string | undefined {
  const known = createModelNames([...provider.models, ...(defaultModel === null ? [] : [defaultModel])]);
  return known.find(model) ?? matchPattern(provider, model);
}

/** One pool is chosen; of several the request must name one. */
function chooseOnly<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  pools: readonly Pool[],
  model: string,
): ModelChoice<Pool> {
  const [pool, second] = pools;
  if (pool === undefined || second !== undefined) return { kind: 'ambiguous', pools, model };
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

/** The name as a list spells it that was read. */
function findRead<Pool extends NamedPool>(
  input: ModelOrderInput<Pool>,
  pool: Pool,
  model: string,
): string | undefined {
  const list = input.listOf(pool);
  return list.state === 'read' ? list.names.find(model) : undefined;
}

/**
 * Providers with patterns name their models in lower case, so a name is tried as it is, then in lower case. The name of
 * a fine-tuned model has parts that its owner chose, after colons: their case stays.
 */
function matchPattern({ modelPatterns }: Provider, model: string): string | undefined {
  const spellings = model.includes(':') ? [model] : [model, model.toLowerCase()];
  return spellings.find((name) => modelPatterns.some((pattern) => pattern.test(name)));
}
