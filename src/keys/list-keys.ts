import { isKeyAllowed, type Caller } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { needsEndpoint } from './key-input.ts';
import { toKeyView, type KeyWithStatus } from './key-view.ts';
import type { KeyStats, KeyView, ProviderView } from './schema.ts';
import { compareByCreation } from './stored-key.ts';

/** Sorted by creation, then id. Decrypts nothing. */
export async function listKeys(deps: KeyDeps, caller: Caller): Promise<KeyView[]> {
  const keys = await readAllowedKeys(deps, caller);
  // Before the dates lose their milliseconds.
  return [...keys].sort((a, b) => compareByCreation(a.stored, b.stored)).map(toKeyView);
}

/** All providers, with the number of the user's keys. */
export async function listProviders(deps: KeyDeps, caller: Caller): Promise<ProviderView[]> {
  const { providers, upstreams } = deps;
  const keys = await readAllowedKeys(deps, caller);
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
export async function countKeyStatuses(deps: KeyDeps, caller: Caller): Promise<KeyStats> {
  const { providers } = deps;
  const keys = await readAllowedKeys(deps, caller);
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
    user_tier: caller.user.tier,
    providers: Object.fromEntries(
      [...statuses].map(([id, list]) => [
        id,
        { key_count: list.length, valid_count: list.filter((status) => status === 'valid').length },
      ]),
    ),
  };
}

/** Sorted by provider, then creation. A token that names its keys shows no other keys. */
async function readAllowedKeys({ reader }: KeyDeps, { user, token }: Caller): Promise<KeyWithStatus[]> {
  const keys = await reader.readKeys(userOwner(user.id));
  return keys.filter(({ stored }) => isKeyAllowed(token, stored.id));
}
