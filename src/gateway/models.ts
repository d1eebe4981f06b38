import type { User } from '../http/principal.ts';
import { type KeyService, type PoolKey } from '../keys/service.ts';
import type { Provider } from '../providers/provider.ts';
import { BYOK_TIER, reachesTier } from '../tiers.ts';
import type { Hops } from '../lib/hop.ts';
import { userOwner } from '../lib/owner.ts';
import type { FindLiveModels, UpstreamModel } from './live-models.ts';
import type { SystemDefault } from './resolve.ts';
import type { ModelList } from './schema.ts';
import type { SystemKey } from './system-answer.ts';
import { keyAddress, systemAddress, type OperatorUpstreams } from '../providers/address.ts';

export interface ModelsDeps {
  keys: KeyService;
  findLiveModels: FindLiveModels;
  hops: Hops;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  system: (SystemDefault & SystemKey) | null;
}

export interface ModelsQuestion {
  user: User;
  /** The request's own hops. */
  receivedHop: string | undefined;
  signal: AbortSignal;
}

/** The models that a user's own keys and the system default reach, ids as requests name them. */
export type ListModels = (question: ModelsQuestion) => Promise<ModelList>;

type Entry = ModelList['data'][number];

/** Builds the model list: what providers list live, else the catalogue. */
export function createModels(deps: ModelsDeps): ListModels {
  return async (question) => {
    deps.hops.refuseLoop(question.receivedHop);
    const { user } = question;
    const pools = await deps.keys.readPools(userOwner(user.id));
    const own = reachesTier(user.tier, BYOK_TIER)
      ? deps.providers.map((provider) => ownModels(deps, question, provider, pools.get(provider.id) ?? []))
      : [];
    const all = (await Promise.all([...own, systemModels(deps, question)])).flat();
    // The own key comes first in the list, and answers where both could.
    const byId = new Map(all.toReversed().map((entry) => [entry.id, entry]));
    return { object: 'list', data: [...byId.values()].toReversed() };
  };
}

/** Asks with the first key of the pool that can be used. */
async function ownModels(
  deps: ModelsDeps,
  { user, receivedHop, signal }: ModelsQuestion,
  provider: Provider,
  pool: readonly PoolKey[],
): Promise<Entry[]> {
  for (const key of pool) {
    const opened = isOffered(key) ? key.open() : undefined;
    const address = opened && keyAddress(provider, opened.endpoint, deps.upstreams);
    if (opened === undefined || address === undefined) continue;
    const models = await deps.findLiveModels({
      pool: `${user.id}:${provider.id}`,
      key: key.token,
      address,
      authorization: opened.secret === '' ? {} : provider.keyTest.authorize(opened.secret),
      hop: address.isUsers ? deps.hops.extend(receivedHop) : null,
      signal,
    });
    return entries(provider, models ?? catalogue(provider.models), 'personal');
  }
  return [];
}

async function systemModels(deps: ModelsDeps, { signal }: ModelsQuestion): Promise<Entry[]> {
  const { system } = deps;
  const provider = deps.providers.find(({ id }) => id === system?.provider);
  if (system === null || provider === undefined) return [];
  const named = [
    ...(system.model === null ? [] : [system.model]),
    ...system.models.filter((id) => id !== '*'),
  ];
  if (!system.models.includes('*')) return entries(provider, catalogue(named), 'system');
  const address = systemAddress(provider, system.baseUrl, deps.upstreams);
  const authorization = provider.keyTest.authorize(system.apiKey);
  const question = { pool: 'system', key: 'system', authorization, hop: null, signal };
  const models = address && (await deps.findLiveModels({ ...question, address }));
  return entries(provider, models ?? catalogue([...named, ...provider.models]), 'system');
}

function isOffered(key: PoolKey): boolean {
  return key.enabled && (key.expiresAt === null || new Date(key.expiresAt) > new Date());
}

function catalogue(ids: readonly string[]): UpstreamModel[] {
  return [...new Set(ids)].map((id) => ({ id }));
}

function entries(provider: Provider, models: readonly UpstreamModel[], scope: Entry['x_ops_scope']): Entry[] {
  return models.map((model) => ({
    id: `${provider.id}/${model.id}`,
    object: 'model',
    created: model.created ?? 0,
    owned_by: model.owned_by ?? provider.id,
    x_ops_scope: scope,
  }));
}
