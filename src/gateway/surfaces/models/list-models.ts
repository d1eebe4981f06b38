import type { User } from '../../../http/principal.ts';
import type { KeyService, ProviderKey } from '../../../keys/service.ts';
import type { Provider } from '../../../providers/provider.ts';
import { BYOK_TIER, isTierAtLeast } from '../../../config/tiers.ts';
import type { LoopGuard } from '../../../lib/net/loop-guard.ts';
import { userOwner } from '../../../lib/owner.ts';
import type { FindProviderModels, ListedModel } from './provider-models.ts';
import type { SystemDefault } from '../../routing/resolve.ts';
import type { ModelList } from '../../schema.ts';
import type { SystemCredential } from '../../upstream/serve-from-system.ts';
import { findKeyAddress, findSystemAddress, type OperatorUpstreams } from '../../../providers/address.ts';

export interface ListModelsDeps {
  keys: KeyService;
  findProviderModels: FindProviderModels;
  loopGuard: LoopGuard;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  system: (SystemDefault & SystemCredential) | null;
}

export interface ListModelsQuery {
  user: User;
  /** Value of the loop guard header of the request. */
  receivedLoopHeader: string | undefined;
  signal: AbortSignal;
}

/** Lists the models that the user's keys and the system default serve, with ids as requests name them. */
export type ListModels = (query: ListModelsQuery) => Promise<ModelList>;

type ModelEntry = ModelList['data'][number];

/** Lists what the providers report, else the built-in catalogue. */
export function createListModels(deps: ListModelsDeps): ListModels {
  return async (query) => {
    deps.loopGuard.rejectLoop(query.receivedLoopHeader);
    const { user } = query;
    const pools = await deps.keys.readPools(userOwner(user.id));
    const personal = isTierAtLeast(user.tier, BYOK_TIER)
      ? deps.providers.map((provider) =>
          listPersonalModels(deps, query, provider, pools.get(provider.id) ?? []),
        )
      : [];
    const entries = (await Promise.all([...personal, listSystemModels(deps, query)])).flat();
    // The personal entry is listed first and wins when the system offers the same id.
    const byId = new Map(entries.toReversed().map((entry) => [entry.id, entry]));
    return { object: 'list', data: [...byId.values()].toReversed() };
  };
}

/** Uses the first usable key of the pool. */
async function listPersonalModels(
  deps: ListModelsDeps,
  { user, receivedLoopHeader, signal }: ListModelsQuery,
  provider: Provider,
  pool: readonly ProviderKey[],
): Promise<ModelEntry[]> {
  for (const key of pool) {
    const decrypted = isUsable(key) ? key.decrypt() : undefined;
    const address = decrypted && findKeyAddress(provider, decrypted.endpoint, deps.upstreams);
    if (decrypted === undefined || address === undefined) continue;
    const models = await deps.findProviderModels({
      pool: `${user.id}:${provider.id}`,
      key: key.token,
      address,
      authorization: decrypted.secret === '' ? {} : provider.keyTest.authorize(decrypted.secret),
      loopHeader: address.isUserSupplied ? deps.loopGuard.extendHeader(receivedLoopHeader) : null,
      signal,
    });
    return toModelEntries(provider, models ?? toListedModels(provider.models), 'personal');
  }
  return [];
}

async function listSystemModels(deps: ListModelsDeps, { signal }: ListModelsQuery): Promise<ModelEntry[]> {
  const { system } = deps;
  const provider = deps.providers.find(({ id }) => id === system?.provider);
  if (system === null || provider === undefined) return [];
  const listedIds = [
    ...(system.model === null ? [] : [system.model]),
    ...system.models.filter((id) => id !== '*'),
  ];
  if (!system.models.includes('*')) return toModelEntries(provider, toListedModels(listedIds), 'system');
  const address = findSystemAddress(provider, system.baseUrl, deps.upstreams);
  const authorization = provider.keyTest.authorize(system.apiKey);
  const query = { pool: 'system', key: 'system', authorization, loopHeader: null, signal };
  const models = address && (await deps.findProviderModels({ ...query, address }));
  return toModelEntries(provider, models ?? toListedModels([...listedIds, ...provider.models]), 'system');
}

function isUsable(key: ProviderKey): boolean {
  return key.enabled && (key.expiresAt === null || new Date(key.expiresAt) > new Date());
}

function toListedModels(ids: readonly string[]): ListedModel[] {
  return [...new Set(ids)].map((id) => ({ id }));
}

function toModelEntries(
  provider: Provider,
  models: readonly ListedModel[],
  scope: ModelEntry['x_ops_scope'],
): ModelEntry[] {
  return models.map((model) => ({
    id: `${provider.id}/${model.id}`,
    object: 'model',
    created: model.created ?? 0,
    owned_by: model.owned_by ?? provider.id,
    x_ops_scope: scope,
  }));
}
