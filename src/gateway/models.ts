import type { User } from '../http/principal.ts';
import type { KeyService, PoolKey } from '../keys/service.ts';
import type { Dialer } from '../lib/dialer.ts';
import type { Provider } from '../providers/provider.ts';
import { BYOK_TIER, reachesTier } from '../tiers.ts';
import { readJsonAnswer } from './answer.ts';
import { upstreamHeaders } from './headers.ts';
import type { SystemDefault } from './resolve.ts';
import { UpstreamModelList, type ModelList } from './schema.ts';
import {
  keyAddress,
  systemAddress,
  type OperatorUpstreams,
  type UpstreamAddress,
} from './upstream-address.ts';

export interface ModelsDeps {
  keys: KeyService;
  dialer: Dialer;
  providers: readonly Provider[];
  upstreams: OperatorUpstreams;
  systemDefault: SystemDefault | null;
  systemKey: { apiKey: string; baseUrl: string | undefined } | null;
}

export interface Models {
  /** The models that a user's own keys and the system default reach, ids as requests name them. */
  list(user: User, signal: AbortSignal): Promise<ModelList>;
}

type Entry = ModelList['data'][number];
type UpstreamModels = { id: string; created?: number | undefined; owned_by?: string | undefined }[];

const FRESH_MS = 5 * 60_000;
const DEADLINE_MS = 2_000;
const REMEMBERED_LISTS = 1_000;

/** Builds the model list: live lists kept for 5 minutes and given 2 s, else the catalogue. */
export function createModels(deps: ModelsDeps): Models {
  const cache = new Map<string, { models: UpstreamModels; untilMs: number }>();

  async function live(
    cacheName: string,
    address: UpstreamAddress,
    secret: string | null,
    signal: AbortSignal,
  ): Promise<UpstreamModels | undefined> {
    const cached = cache.get(cacheName);
    if (cached !== undefined && cached.untilMs > Date.now()) return cached.models;
    const models = await fetchModels(deps.dialer, address, secret, signal);
    if (models === undefined) return undefined;
    cache.delete(cacheName);
    cache.set(cacheName, { models, untilMs: Date.now() + FRESH_MS });
    const oldest = cache.keys().next();
    if (cache.size > REMEMBERED_LISTS && !oldest.done) cache.delete(oldest.value);
    return models;
  }

  async function ownModels(
    user: User,
    provider: Provider,
    pool: readonly PoolKey[],
    signal: AbortSignal,
  ): Promise<Entry[]> {
    for (const key of pool) {
      const opened = isOffered(key) ? key.open() : undefined;
      const address = opened && keyAddress(provider, opened.endpoint, deps.upstreams);
      if (opened === undefined || address === undefined) continue;
      const models = await live(
        `${user.id}:${key.id}`,
        address,
        opened.secret === '' ? null : opened.secret,
        signal,
      );
      return entries(provider, models ?? provider.models.map((id) => ({ id })), 'personal');
    }
    return [];
  }

  async function systemModels(signal: AbortSignal): Promise<Entry[]> {
    const { systemDefault: system, systemKey } = deps;
    const provider = deps.providers.find(({ id }) => id === system?.provider);
    if (system === null || systemKey === null || provider === undefined) return [];
    const named = [...new Set([...(system.model === null ? [] : [system.model]), ...system.models])].filter(
      (id) => id !== '*',
    );
    if (!system.models.includes('*'))
      return entries(
        provider,
        named.map((id) => ({ id })),
        'system',
      );
    const address = systemAddress(provider, systemKey.baseUrl, deps.upstreams);
    const models = address && (await live('system', address, systemKey.apiKey, signal));
    return entries(
      provider,
      models ?? [...new Set([...named, ...provider.models])].map((id) => ({ id })),
      'system',
    );
  }

  return {
    async list(user, signal) {
      const pools = await deps.keys.readPools(`user:${user.id}`);
      const own = reachesTier(user.tier, BYOK_TIER)
        ? deps.providers.map((provider) => ownModels(user, provider, pools.get(provider.id) ?? [], signal))
        : [];
      const all = (await Promise.all([...own, systemModels(signal)])).flat();
      // The own key comes first in the list, and answers where both could.
      const byId = new Map(all.toReversed().map((entry) => [entry.id, entry]));
      return { object: 'list', data: [...byId.values()].toReversed() };
    },
  };
}

function isOffered(key: PoolKey): boolean {
  return key.enabled && (key.expiresAt === null || new Date(key.expiresAt) > new Date());
}

function entries(provider: Provider, models: UpstreamModels, scope: Entry['x_ops_scope']): Entry[] {
  return models.map((model) => ({
    id: `${provider.id}/${model.id}`,
    object: 'model',
    created: model.created ?? 0,
    owned_by: model.owned_by ?? provider.id,
    x_ops_scope: scope,
  }));
}

/** Undefined when the provider does not answer in time or not with a model list; the catalogue serves then. */
async function fetchModels(
  dialer: Dialer,
  address: UpstreamAddress,
  secret: string | null,
  signal: AbortSignal,
): Promise<UpstreamModels | undefined> {
  try {
    const answer = await dialer.request({
      url: new URL(`${address.baseUrl}/models`),
      method: 'GET',
      headers: upstreamHeaders({ client: {}, secret, stream: false, scope: 'personal', hop: null }),
      guarded: address.isUsers,
      signal: AbortSignal.any([signal, AbortSignal.timeout(DEADLINE_MS)]),
      firstByteTimeoutMs: DEADLINE_MS,
      idleTimeoutMs: DEADLINE_MS,
    });
    return UpstreamModelList.parse(await readJsonAnswer(answer)).data;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}
