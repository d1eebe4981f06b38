import { setTimeout as pause } from 'node:timers/promises';
import type { Owner } from '../../lib/owner.ts';
import { busy, type Hold } from '../owner-lock.ts';
import type { Vault, VaultRecord, WritableVault } from '../vault.ts';

type Values = VaultRecord['values'];

interface Target {
  owner: Owner;
  ownerName: string;
  /** The record's id where it is known; otherwise it is found by its name. */
  recordId: string | null;
}

const MAX_FAILURES = 5;
const PAUSE_MS = 50;

/**
 * Makes a record hold exactly these values, provider by provider, each write read back; all else of the record
 * stays. A record that is not there is made. What holds already is not written again.
 * @throws AppError `busy`, `keycloak_unavailable`.
 */
export async function setValues(
  vault: Vault,
  hold: Hold,
  target: Target,
  wanted: Values,
): Promise<VaultRecord> {
  const { owner, ownerName, recordId } = target;
  const writable = vault.until(hold.deadlineMs);
  for (let failures = 0; failures < MAX_FAILURES;) {
    const record = await findOrCreate(writable, owner, ownerName, recordId);
    const provider = differing(record.values, wanted);
    if (provider === undefined) return record;
    const values = wanted.get(provider) ?? [];
    if (await writable.writeValues(owner, record, { provider, values, ownerName })) continue;
    failures += 1;
    await pause(PAUSE_MS * failures);
  }
  throw busy();
}

async function findOrCreate(
  writable: WritableVault,
  owner: Owner,
  ownerName: string,
  recordId: string | null,
): Promise<VaultRecord> {
  return (await writable.findRecord(owner, recordId)) ?? (await writable.createRecord(owner, ownerName));
}

/** A provider whose values are not the same in both. Keycloak does not keep their order. */
function differing(a: Values, b: Values): string | undefined {
  return [...a.keys(), ...b.keys()].find((provider) => textOf(a, provider) !== textOf(b, provider));
}

function textOf(values: Values, provider: string): string {
  return JSON.stringify([...(values.get(provider) ?? [])].sort());
}
