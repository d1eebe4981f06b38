import type { Keyring } from '../../lib/crypto/keyring.ts';
import { parsePool, type StoredKey } from '../stored-key.ts';
import type { VaultRecord } from '../vault.ts';

type KeyValues = VaultRecord['values'];

/**
 * Whether the current record contains everything of the old one, so that the old one can be deleted. A key that was
 * changed or re-encrypted in the current record is contained. A key that was written to the old record since is not,
 * nor is a key that its owner has deleted meanwhile: the two cases cannot be distinguished.
 */
export function areValuesContained(keyring: Keyring, old: KeyValues, current: KeyValues): boolean {
  return [...old].every(([provider, list]) => {
    const [oldPool, currentPool] = [parsePool(list), parsePool(current.get(provider) ?? [])];
    return (
      oldPool.unreadable.every((value) => currentPool.unreadable.includes(value)) &&
      oldPool.keys.every((key) =>
        currentPool.keys.some((other) => other.id === key.id && !isOlder(keyring, other, key)),
      )
    );
  });
}

/** With the same token, only the label may be newer. A re-encrypted token keeps its time, under a newer key. */
function isOlder(keyring: Keyring, current: StoredKey, old: StoredKey): boolean {
  if (current.token === old.token) return false;
  if (current.updatedAt !== old.updatedAt) return current.updatedAt < old.updatedAt;
  const [currentIndex, oldIndex] = [keyring.findKeyIndex(current.token), keyring.findKeyIndex(old.token)];
  return currentIndex === undefined || (oldIndex !== undefined && oldIndex <= currentIndex);
}
