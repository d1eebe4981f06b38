import { setTimeout as delay } from 'node:timers/promises';
import type { Keyring } from '../../lib/crypto/keyring.ts';
import type { Owner } from '../../lib/owner.ts';
import { keysBusy, type HeldOwnerLock } from '../owner-lock.ts';
import { parsePool, type StoredKey } from '../stored-key.ts';
import type { Vault, VaultRecord, WritableVault } from '../vault.ts';

type KeyValues = VaultRecord['values'];

interface TargetRecord {
  owner: Owner;
  ownerName: string;
  /** Null where it is not known: the record is then found by its user name. */
  recordId: string | null;
}

const MAX_FAILURES = 5;
const RETRY_DELAY_MS = 50;

/**
 * Makes a record hold exactly these values. Writes provider by provider and reads each write back. The rest of the
 * record stays. A missing record is created. Equal values are not written again.
 * @throws AppError `busy`, `keycloak_unavailable`.
 */
export async function setRecordValues(
  vault: Vault,
  held: HeldOwnerLock,
  target: TargetRecord,
  desired: KeyValues,
): Promise<VaultRecord> {
  const { owner, ownerName, recordId } = target;
  const writable = vault.writableUntil(held.deadlineMs);
  for (let failures = 0; failures < MAX_FAILURES;) {
    const record = await findOrCreateRecord(writable, owner, ownerName, recordId);
    const provider = findDifferingProvider(record.values, desired);
    if (provider === undefined) return record;
    const values = desired.get(provider) ?? [];
    if (await writable.writeValues(owner, record, { provider, values, ownerName })) continue;
    failures += 1;
    await delay(RETRY_DELAY_MS * failures);
  }
  throw keysBusy();
}

async function findOrCreateRecord(
  writable: WritableVault,
  owner: Owner,
  ownerName: string,
  recordId: string | null,
): Promise<VaultRecord> {
  return (await writable.findRecord(owner, recordId)) ?? (await writable.createRecord(owner, ownerName));
}

/** A provider whose values differ. Their order does not count: Keycloak does not keep it. */
function findDifferingProvider(a: KeyValues, b: KeyValues): string | undefined {
  return [...a.keys(), ...b.keys()].find(
    (provider) => toComparable(a, provider) !== toComparable(b, provider),
  );
}

function toComparable(values: KeyValues, provider: string): string {
  return JSON.stringify([...(values.get(provider) ?? [])].sort());
}

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
