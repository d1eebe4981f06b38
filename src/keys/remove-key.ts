import { requireRecentSignIn } from '../http/authorization.ts';
import { isKeyAllowed, type Principal } from '../http/principal.ts';
import { assertNoIfMatch } from '../http/versions.ts';
import { AppError } from '../lib/errors.ts';
import { userOwner } from '../lib/owner.ts';
import type { KeyDeps } from './deps.ts';
import { getProvider } from './key-input.ts';
import { createRemovalEdit, type RemovalEdit } from './pool-edit.ts';
import { changePool } from './pool-writer.ts';
import type { KeysDeleted } from './schema.ts';
import { keyNotFound } from './stored-key.ts';

export interface RemovalTarget {
  /** Undefined for all keys of the provider. */
  keyId: string | undefined;
  /** The `If-Match` header. */
  ifMatch?: string | undefined;
}

/**
 * Deletes one key, or without `keyId` all of the provider's.
 * @throws AppError `validation_failed` (400) for a token or `ifMatch` without `keyId`; `reauth_required` (403) without
 *   `keyId` and without a recent sign-in; `version_mismatch` (412);
 *   `unknown_provider`, `key_not_found`, `busy`, `keycloak_unavailable`, `database_unavailable`.
 */
export async function removeKey(
  deps: KeyDeps,
  principal: Principal,
  providerId: string,
  { keyId, ifMatch }: RemovalTarget,
  requestId: string,
): Promise<KeysDeleted> {
  const { user, token } = principal;
  const provider = getProvider(deps.providers, providerId);
  if (token !== null && keyId === undefined) throw keyIdMissing();
  if (keyId === undefined)
    assertNoIfMatch(ifMatch, 'If-Match needs key_id: it names the version of one key.');
  if (keyId !== undefined && !isKeyAllowed(token, keyId)) throw keyNotFound(provider);
  const owner = userOwner(user.id);
  const change = { owner, ownerName: user.username, provider: provider.id, requestId };
  const { removal } = await changePool<RemovalEdit>(
    deps,
    { ...change, action: 'key.deleted' },
    (pool, overwritten) => {
      if (keyId === undefined) requireRecentSignIn(principal);
      // The pool no longer has what an overwritten write has removed after all.
      return createRemovalEdit(provider, { keyId, ifMatch }, pool, overwritten?.removal);
    },
  );
  const deleted = removal.ids.size + removal.unreadableCount;
  return { message: `${deleted} ${provider.name} ${deleted === 1 ? 'key' : 'keys'} deleted.`, deleted };
}

/** A program that sends no id by mistake must not delete all keys. */
function keyIdMissing(): AppError {
  return new AppError('validation_failed', 'The request is not valid; see errors.', {
    errors: [{ path: 'key_id', message: 'is required with a token, which deletes one key at a time' }],
  });
}
