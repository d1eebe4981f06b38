import type { Keyring } from '../../lib/crypto/keyring.ts';
import { parsePool, type StoredKey } from '../stored-key.ts';
import type { VaultRecord } from '../vault.ts';

type KeyValues = VaultRecord['values'];

/**
 * Whether everything of an old record is in the one that counts, so that the old one can go. A key that was
 * changed or sealed anew in the one that counts is there; one that was written to the old one since is not, nor is
 * one that its owner has deleted meanwhile: the two cannot be told apart.
 */
export function areValuesContained(keyring: Keyring, old: KeyValues, now: KeyValues): boolean {
  return [...old].every(([provider, list]) => {
    const [then, current] = [parsePool(list), parsePool(now.get(provider) ?? [])];
    return (
      then.unreadable.every((value) => current.unreadable.includes(value)) &&
      then.keys.every((key) =>
        current.keys.some((other) => other.id === key.id && !isOlder(keyring, other, key)),
      )
    );
  });
}

/** The same token may stand beside a newer label. A token sealed anew keeps its time, under a newer key. */
function isOlder(keyring: Keyring, now: StoredKey, old: StoredKey): boolean {
  if (now.token === old.token) return false;
  if (now.updatedAt !== old.updatedAt) return now.updatedAt < old.updatedAt;
  const [current, then] = [keyring.findKeyIndex(now.token), keyring.findKeyIndex(old.token)];
  return current === undefined || (then !== undefined && then <= current);
}
