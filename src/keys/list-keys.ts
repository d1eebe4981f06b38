import type { User } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { needsEndpoint } from './key-input.ts';
import { toKeyView } from './key-view.ts';
import type { KeyStats, KeyView, ProviderView } from './schema.ts';
import { compareByCreation } from './stored-key.ts';

/** Sorted by creation, then id. Decrypts nothing. */
export async function listKeys({ reader }: KeyDeps, user: User): Promise<KeyView[]> {
  const keys = await reader.readKeys(userOwner(user.id));
  // Before the dates lose their milliseconds.
  return [...keys].sort((a, b) => compareByCreation(a.stored, b.stored)).map(toKeyView);
}

/** All providers, with the number of the user's keys. */
export async function listProviders(
  { reader, providers, upstreams }: KeyDeps,
  user: User,
): Promise<ProviderView[]> {
  const keys = await reader.readKeys(userOwner(user.id));
  return providers.map((provider) => {
    const keyCount = keys.filter((key) => key.provider === provider).length;
    return {
      id: provider.id,
      name: provider.name,
      kind: provider.kind,
      key_format: provider.key.hint,
      requires_key: provider.requiresKey,
      requires_endpoint: needsEndpoint(provider, upstreams),
      configured: keyCount > 0,
      key_count: keyCount,
      docs_url: provider.docsUrl,
      models: [...provider.models],
    };
  });
}

/** Counts the user's keys and what is known of them. */
export async function countKeyStatuses(
  { reader, providers }: KeyDeps,
  { id: userId, tier }: User,
): Promise<KeyStats> {
  const keys = await reader.readKeys(userOwner(userId));
  const statuses = new Map(
    providers.map(({ id }) => [
      id,
      keys.filter((key) => key.provider.id === id).map((key) => key.status.testStatus),
    ]),
  );
  const count = (test: (list: readonly string[]) => boolean) => [...statuses.values()].filter(test).length;
  return {
    total_providers: providers.length,
    configured_providers: count((list) => list.length > 0),
    tested_providers: count((list) => list.some((status) => status !== 'untested')),
    valid_providers: count((list) => list.includes('valid')),
    user_tier: tier,
    providers: Object.fromEntries(
      [...statuses].map(([id, list]) => [
        id,
        { key_count: list.length, valid_count: list.filter((status) => status === 'valid').length },
      ]),
    ),
  };
}
