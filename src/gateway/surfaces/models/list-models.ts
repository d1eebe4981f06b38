import type { Caller } from '../../../http/principal.ts';
import type { Dialer } from '../../../lib/net/dialer.ts';
import type { LoopGuard } from '../../../lib/net/loop-guard.ts';
import { BYOK_TIER, isTierAtLeast } from '../../../config/tiers.ts';
import { findSystemAddress, type OperatorUpstreams } from '../../../providers/address.ts';
import type { Provider } from '../../../providers/provider.ts';
import { ANY_MODEL, findSystemPool, listSystemModels } from '../../routing/caller-models.ts';
import { createModelLists, type ListedModel, type ModelLists } from '../../routing/model-lists.ts';
import { toUniqueName, type NamedPool } from '../../routing/model-order.ts';
import type { SystemDefault } from '../../routing/resolve.ts';
import type { GatewayPool, Routing } from '../../routing/routing.ts';
import { isModelAllowed, isSystemAllowed } from '../../routing/token-restrictions.ts';
import type { SystemCredential } from '../../upstream/serve-from-system.ts';

export interface ListModelsDeps {
  routing: Pick<Routing, 'readPools' | 'readModels'>;
  dialer: Dialer;
  loopGuard: LoopGuard;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  system: (SystemDefault & SystemCredential) | null;
}

/** A model that the user may name in a request. */
export interface CallerModel {
  /** Selects its pool: `provider/model`, or `provider:<slug>/model`. */
  id: string;
  /** As its provider names it. */
  name: string;
  /** As its provider shows it to people; null where it does not. */
  displayName: string | null;
  /** Epoch seconds; 0 when the provider does not report it. */
  created: number;
  ownedBy: string;
  /** Who would pay. */
  scope: 'personal' | 'system';
}

/**
 * Lists the models that the user's keys and the system default serve, as far as the token may use them, each once.
 * @param receivedLoopHeader value of the loop guard header of the request.
 */
export type ListModels = (
  caller: Caller,
  receivedLoopHeader: string | undefined,
) => Promise<readonly CallerModel[]>;

/** Lists what the providers report, else the built-in catalogue. */
export function createListModels(deps: ListModelsDeps): ListModels {
  const systemLists = createModelLists(deps.dialer);

  async function listPersonalModels(
    { token }: Caller,
    pool: GatewayPool,
    receivedLoopHeader: string | undefined,
  ): Promise<CallerModel[]> {
    const models = await deps.routing.readModels(pool, receivedLoopHeader);
    const provider = deps.providers.find(({ id }) => id === pool.provider);
    const listed = models ?? toListedModels(provider?.models ?? []);
    const allowed = listed.filter(({ id }) => isModelAllowed(token, pool, id));
    return toCallerModels(pool, allowed, 'personal');
  }

  return async (caller, receivedLoopHeader) => {
    deps.loopGuard.rejectLoop(receivedLoopHeader);
    const pools = isTierAtLeast(caller.user.tier, BYOK_TIER) ? await deps.routing.readPools(caller) : [];
    const [personal, system] = await Promise.all([
      Promise.all(pools.map((pool) => listPersonalModels(caller, pool, receivedLoopHeader))),
      listModelsOfSystem(deps, systemLists, caller, pools),
    ]);
    const own = personal.flat();
    // A key of the user serves a whole name that its list has, also where it begins like the system's provider.
    const taken = new Set(own.flatMap(({ id, name }) => [id, name]));
    const models = [...own, ...system.filter(({ id }) => !taken.has(id))];
    // A page of the list begins after an id, which a list of a provider can have twice.
    return [...new Map(models.map((model) => [model.id, model])).values()];
  };
}

/** Nothing where the user has keys for the system's provider, since the system does not pay then. */
async function listModelsOfSystem(
  deps: ListModelsDeps,
  lists: ModelLists,
  { token }: Caller,
  pools: readonly NamedPool[],
): Promise<CallerModel[]> {
  const { providers, system } = deps;
  const provider = providers.find(({ id }) => id === system?.provider);
  const pool = findSystemPool(providers, system, pools);
  if (system === null || provider === undefined || pool === undefined || !isSystemAllowed(token)) return [];
  const toAllowed = (models: readonly ListedModel[]) =>
    toCallerModels(
      pool,
      models.filter(({ id }) => isModelAllowed(token, pool, id)),
      'system',
    );
  const known = toListedModels(listSystemModels(providers, system));
  if (!system.models.includes(ANY_MODEL)) return toAllowed(known);
  const address = findSystemAddress(provider, system.baseUrl, deps.upstreams);
  const authorization = provider.keyTest.authorize(system.apiKey);
  const query = { poolId: 'system', owner: null, token: 'system', authorization, loopHeader: null };
  const models = address && (await lists.read({ ...query, address }));
  return toAllowed(models ?? known);
}

function toListedModels(ids: readonly string[]): ListedModel[] {
  return ids.map((id) => ({ id }));
}

function toCallerModels(
  pool: NamedPool,
  models: readonly ListedModel[],
  scope: CallerModel['scope'],
): CallerModel[] {
  return models.map((model) => ({
    id: toUniqueName(pool, model.id),
    name: model.id,
    displayName: model.display_name ?? null,
    created: model.created ?? 0,
    ownedBy: model.owned_by ?? pool.provider,
    scope,
  }));
}
