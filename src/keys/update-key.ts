import { isKeyAllowed, type Principal } from '../http/principal.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { readKeyView } from './key-view.ts';
import { createUpdateEdit } from './pool-edit.ts';
import { changePool, type PoolWrite } from './pool-writer.ts';
import type { KeyView, UpdateKey } from './schema.ts';
import { keyNotFound } from './stored-key.ts';

export interface KeyTarget {
  /** Provider id. */
  provider: string;
  keyId: string;
  /** The `If-Match` header. */
  ifMatch?: string | undefined;
}

type UpdateWrite = PoolWrite & { value: string };

/**
 * Changes label, enabled state or expiry.
 * @throws AppError `unknown_provider`, `key_not_found` (404), `version_mismatch` (412), `key_undecryptable` (424) for a new expiry of
 *   a key that does not decrypt; `busy`, `keycloak_unavailable`, `database_unavailable` (503).
 */
export async function updateKey(
  deps: KeyDeps,
  { user, token }: Principal,
  { provider: providerId, keyId, ifMatch }: KeyTarget,
  update: UpdateKey,
  requestId: string,
): Promise<KeyView> {
  const provider = getProvider(deps.providers, providerId);
  if (!isKeyAllowed(token, keyId)) throw keyNotFound(provider);
  const owner = userOwner(user.id);
  const change = { owner, ownerName: user.username, provider: provider.id, requestId };
  const target = { owner, provider, id: keyId, ifMatch };
  const { value } = await changePool<UpdateWrite>(
    deps,
    { ...change, action: 'key.updated' },
    (pool, overwritten) => ({
      ...createUpdateEdit(deps.keyring, target, update, pool, overwritten),
      keyIds: [keyId],
      status: { kind: 'end_cooldown' },
    }),
  );
  return readKeyView(deps.database, owner, provider, value);
}
