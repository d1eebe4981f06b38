import type { Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { createRemovalEdit, NO_REMOVAL } from './pool-edit.ts';
import { changePool } from './pool-writer.ts';
import type { KeysDeleted } from './schema.ts';

/**
 * Deletes one key, or without `keyId` all of the provider's.
 * @throws AppError `unknown_provider`, `key_not_found`, `busy`, `keycloak_unavailable`, `database_unavailable`.
 */
export async function removeKey(
  deps: KeyDeps,
  { user }: Principal,
  providerId: string,
  keyId: string | undefined,
  requestId: string,
): Promise<KeysDeleted> {
  const provider = getProvider(deps.providers, providerId);
  const owner = userOwner(user.id);
  const change = { owner, ownerName: user.username, provider: provider.id, requestId };
  // Carried from attempt to attempt: an attempt no longer reads what an earlier one removed after all.
  let removal = NO_REMOVAL;
  await changePool(deps, { ...change, action: 'key.deleted' }, async (pool, write) => {
    const edit = createRemovalEdit(provider, keyId, pool, removal);
    removal = edit.removal;
    await write({ values: edit.values, keyIds: edit.keyIds, status: { kind: 'reset' } });
  });
  const deleted = removal.ids.size + removal.unreadableCount;
  return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
}
