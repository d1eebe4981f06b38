import type { User } from '../../../http/principal.ts';
import type { Dialer } from '../../../lib/net/dialer.ts';
import type { LoopGuard } from '../../../lib/net/loop-guard.ts';
import { BYOK_TIER, isTierAtLeast } from '../../../config/tiers.ts';
import { findSystemAddress, toEndpointSlug, type OperatorUpstreams } from '../../../providers/address.ts';
import type { Provider } from '../../../providers/provider.ts';
import { createModelLists, type ListedModel, type ModelLists } from '../../routing/model-lists.ts';
import { toUniqueName, type NamedPool } from '../../routing/model-order.ts';
import type { SystemDefault } from '../../routing/resolve.ts';
import type { GatewayPool, Routing } from '../../routing/routing.ts';
import type { ModelList } from '../../schema.ts';
import type { SystemCredential } from '../../upstream/serve-from-system.ts';

export interface ListModelsDeps {
  routing: Pick<Routing, 'readPools' | 'readModels'>;
  dialer: Dialer;
  loopGuard: LoopGuard;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  system: (SystemDefault & SystemCredential) | null;
}

/**
 * Lists the models that the user's keys and the system default serve, with names that select their pool.
 * @param receivedLoopHeader value of the loop guard header of the request.
 */
export type ListModels = (user: User, receivedLoopHeader: string | undefined) => Promise<ModelList>;

type ModelEntry = ModelList['data'][number];

/** Lists what the providers report, else the built-in catalogue. */
export function createListModels(deps: ListModelsDeps): ListModels {
  const systemLists = createModelLists(deps.dialer);

  async function listPersonalModels(
    pool: GatewayPool,
    receivedLoopHeader: string | undefined,
  ): Promise<ModelEntry[]> {
    const models = await deps.routing.readModels(pool, receivedLoopHeader);
    const provider = deps.providers.find(({ id }) => id === pool.provider);
    return toModelEntries(pool, models ?? toListedModels(provider?.models ?? []), 'personal');
  }

  return async (user, receivedLoopHeader) => {
    deps.loopGuard.rejectLoop(receivedLoopHeader);
    const pools = isTierAtLeast(user.tier, BYOK_TIER) ? await deps.routing.readPools(user) : [];
    const [personal, system] = await Promise.all([
      Promise.all(pools.map((pool) => listPersonalModels(pool, receivedLoopHeader))),
      listSystemModels(deps, systemLists, pools),
    ]);
    const entries = personal.flat();
    // A key of the user serves a whole name that its list has, also where it begins like the system's provider.
    const taken = new Set(entries.flatMap(({ id }) => [id, id.slice(id.indexOf('/') + 1)]));
    return { object: 'list', data: [...entries, ...system.filter(({ id }) => !taken.has(id))] };
  };
}

/** Nothing where the user has keys for the system's provider, since the system does not pay then. */
async function listSystemModels(
  deps: ListModelsDeps,
  lists: ModelLists,
  pools: readonly NamedPool[],
): Promise<ModelEntry[]> {
  const { system } = deps;
  const provider = deps.providers.find(({ id }) => id === system?.provider);
  if (system === null || provider === undefined) return [];
  const pool = { provider: provider.id, endpointSlug: toEndpointSlug(provider, null) };
  if (pools.some((own) => toUniqueName(own, '') === toUniqueName(pool, ''))) return [];
  const listedIds = [
    ...(system.model === null ? [] : [system.model]),
    ...system.models.filter((id) => id !== '*'),
  ];
  if (!system.models.includes('*')) return toModelEntries(pool, toListedModels(listedIds), 'system');
  const address = findSystemAddress(provider, system.baseUrl, deps.upstreams);
  const authorization = provider.keyTest.authorize(system.apiKey);
  const query = { poolId: 'system', owner: null, token: 'system', authorization, loopHeader: null };
  const models = address && (await lists.read({ ...query, address }));
  return toModelEntries(pool, models ?? toListedModels([...listedIds, ...provider.models]), 'system');
}

function toListedModels(ids: readonly string[]): ListedModel[] {
  return [...new Set(ids)].map((id) => ({ id }));
}

function toModelEntries(
  pool: NamedPool,
  models: readonly ListedModel[],
  scope: ModelEntry['x_ops_scope'],
): ModelEntry[] {
  return models.map((model) => ({
    id: toUniqueName(pool, model.id),
    object: 'model',
    created: model.created ?? 0,
    owned_by: model.owned_by ?? pool.provider,
    x_ops_scope: scope,
  }));
}
