import type { Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { createRemovalEdit, type RemovalEdit } from './pool-edit.ts';
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
  const { removal } = await changePool<RemovalEdit>(
    deps,
    { ...change, action: 'key.deleted' },
    // The pool no longer has what an overwritten write has removed after all.
    (pool, overwritten) => createRemovalEdit(provider, keyId, pool, overwritten?.removal),
  );
  const deleted = removal.ids.size + removal.unreadableCount;
  return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
}
