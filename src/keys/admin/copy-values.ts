import { setTimeout as pause } from 'node:timers/promises';
import type { Owner } from '../../lib/owner.ts';
import { keysBusy, type HeldOwnerLock } from '../owner-lock.ts';
import type { Vault, VaultRecord, WritableVault } from '../vault.ts';

type KeyValues = VaultRecord['values'];

interface TargetRecord {
  owner: Owner;
  ownerName: string;
  /** The record's id where it is known; otherwise it is found by its name. */
  recordId: string | null;
}

const MAX_FAILURES = 5;
const RETRY_DELAY_MS = 50;

/**
 * Makes a record hold exactly these values, provider by provider, each write read back; all else of the record
 * stays. A record that is not there is made. What holds already is not written again.
 * @throws AppError `busy`, `keycloak_unavailable`.
 */
export async function setRecordValues(
  vault: Vault,
  held: HeldOwnerLock,
  target: TargetRecord,
  wanted: KeyValues,
): Promise<VaultRecord> {
  const { owner, ownerName, recordId } = target;
  const writable = vault.writableUntil(held.deadlineMs);
  for (let failures = 0; failures < MAX_FAILURES;) {
    const record = await findOrCreateRecord(writable, owner, ownerName, recordId);
    const provider = findDifferingProvider(record.values, wanted);
    if (provider === undefined) return record;
    const values = wanted.get(provider) ?? [];
    if (await writable.writeValues(owner, record, { provider, values, ownerName })) continue;
    failures += 1;
    await pause(RETRY_DELAY_MS * failures);
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

/** A provider whose values are not the same in both. Keycloak does not keep their order. */
function findDifferingProvider(a: KeyValues, b: KeyValues): string | undefined {
  return [...a.keys(), ...b.keys()].find(
    (provider) => toComparable(a, provider) !== toComparable(b, provider),
  );
}

function toComparable(values: KeyValues, provider: string): string {
  return JSON.stringify([...(values.get(provider) ?? [])].sort());
}
