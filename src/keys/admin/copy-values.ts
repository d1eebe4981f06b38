import { setTimeout as delay } from 'node:timers/promises';
import type { Owner } from '../../lib/owner.ts';
import { keysBusy, type HeldOwnerLock } from '../owner-lock.ts';
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
