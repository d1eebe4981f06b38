import { toEndpointSlug } from '../../providers/address.ts';
import type { Provider } from '../../providers/provider.ts';
import { toUniqueName, type KnownList, type NamedPool } from './model-order.ts';

/** In the operator's list of models: the system pays for any. */
export const ANY_MODEL = '*';

/** What the operator says of the system default. */
interface SystemModels {
  provider: string;
  model: string | null;
  models: readonly string[];
}

/**
 * The pool whose models the system pays for.
 * @param pools those that the caller may use: one for the same provider excludes the system.
 */
export function findSystemPool(
  providers: readonly Provider[],
  system: SystemModels | null,
  pools: readonly NamedPool[],
): NamedPool | undefined {
  const provider = providers.find(({ id }) => id === system?.provider);
  if (provider === undefined) return undefined;
  const pool = { provider: provider.id, endpointSlug: toEndpointSlug(provider, null) };
  return pools.some((own) => toUniqueName(own, '') === toUniqueName(pool, '')) ? undefined : pool;
}

/** The models that the system pays for, as far as they are known without the provider's list. */
export function listSystemModels(providers: readonly Provider[], system: SystemModels): string[] {
  const named = [
    ...(system.model === null ? [] : [system.model]),
    ...system.models.filter((id) => id !== ANY_MODEL),
  ];
  const catalogue = system.models.includes(ANY_MODEL) ? modelsOf(providers, system.provider) : [];
  return [...new Set([...named, ...catalogue])];
}

export interface CallerModelsInput<Pool extends NamedPool> {
  providers: readonly Provider[];
  /** Those that the caller may use. */
  pools: readonly Pool[];
  listOf(pool: Pool): KnownList;
  system: SystemModels | null;
}

/**
 * The models of the caller, with names that select their pool, without a call: from lists that were read, else from the
 * catalogue.
 */
export function* listCallerModels<Pool extends NamedPool>(input: CallerModelsInput<Pool>): Generator<string> {
  const { providers, pools, system } = input;
  for (const pool of pools) {
    const list = input.listOf(pool);
    const names = list.state === 'read' ? list.names.all() : modelsOf(providers, pool.provider);
    for (const name of names) yield toUniqueName(pool, name);
  }
  const systemPool = findSystemPool(providers, system, pools);
  if (system === null || systemPool === undefined) return;
  for (const name of listSystemModels(providers, system)) yield toUniqueName(systemPool, name);
}

function modelsOf(providers: readonly Provider[], id: string): readonly string[] {
  return providers.find((provider) => provider.id === id)?.models ?? [];
}
