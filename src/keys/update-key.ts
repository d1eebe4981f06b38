import { isKeyAllowed, type Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { readKeyView } from './key-view.ts';
import { createUpdateEdit } from './pool-edit.ts';
import { changePool } from './pool-writer.ts';
import type { KeyView, UpdateKey } from './schema.ts';
import { keyNotFound } from './stored-key.ts';

export interface KeyTarget {
  /** Provider id. */
  provider: string;
  keyId: string;
}

/**
 * Changes label, enabled state or expiry.
 * @throws AppError `unknown_provider`, `key_not_found` (404), `key_undecryptable` (424) for a new expiry of
 *   a key that does not decrypt; `busy`, `keycloak_unavailable`, `database_unavailable` (503).
 */
export async function updateKey(
  deps: KeyDeps,
  { user, token }: Principal,
  { provider: providerId, keyId }: KeyTarget,
  update: UpdateKey,
  requestId: string,
): Promise<KeyView> {
  const provider = getProvider(deps.providers, providerId);
  if (!isKeyAllowed(token, keyId)) throw keyNotFound(provider);
  const owner = userOwner(user.id);
  const change = { owner, ownerName: user.username, provider: provider.id, requestId };
  const { value } = await changePool(deps, { ...change, action: 'key.updated' }, (pool) => {
    const edit = createUpdateEdit(deps.keyring, { owner, provider, id: keyId }, update, pool);
    return { ...edit, keyIds: [keyId], status: { kind: 'end_cooldown' } as const };
  });
  return readKeyView(deps.database, owner, provider, value);
}
