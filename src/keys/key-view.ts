import type { Owner } from '../lib/owner.ts';
import type { Database } from '../lib/postgres/database.ts';
import { toEndpointSlug } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';
import type { KeyTestResult } from './call-provider.ts';
import { listKeyStatuses, INITIAL_KEY_STATUS, keyStatusName, type KeyStatus } from './key-status-store.ts';
import type { KeyTested, KeyView } from './schema.ts';
import { parsePool, toKeyVersion, type StoredKey } from './stored-key.ts';

export interface KeyWithStatus {
  provider: Provider;
  stored: StoredKey;
  status: KeyStatus;
}

export function toKeyView({ provider, stored, status }: KeyWithStatus): KeyView {
  return {
    id: stored.id,
    scope: 'personal',
    provider: provider.id,
    provider_name: provider.name,
    key_preview: stored.mask,
    label: stored.label,
    endpoint: stored.endpoint,
    endpoint_slug: toEndpointSlug(provider, stored.endpoint),
    enabled: stored.enabled,
    added_date: toSecond(new Date(stored.createdAt)),
    updated_date: toSecond(new Date(stored.updatedAt)),
    expires_at: stored.expiresAt,
    last_used: status.lastUsedAt && toSecond(status.lastUsedAt),
    last_tested: status.lastTestedAt && toSecond(status.lastTestedAt),
    test_status: status.testStatus,
    test_message: status.testMessage,
    version: toKeyVersion(stored),
  };
}

/** The time of the last change is stored to the second, and all dates of a key have one precision, so that they compare. */
function toSecond(date: Date): string {
  return new Date(Math.floor(date.getTime() / 1000) * 1000).toISOString();
}

/** The owner's view of a key, from the value that was just stored. */
export async function readKeyView(
  database: Database,
  owner: Owner,
  provider: Provider,
  value: string,
): Promise<KeyView> {
  const [stored] = parsePool([value]).keys;
  if (stored === undefined) throw new Error('the stored value is not a key');
  const statuses = await database.withOwner(owner, (sql) => listKeyStatuses(sql, owner));
  const status = statuses.get(keyStatusName(provider.id, stored.id)) ?? INITIAL_KEY_STATUS;
  return toKeyView({ provider, stored, status });
}

export function toKeyTested(provider: string, keyId: string, result: KeyTestResult): KeyTested {
  const { latencyMs, httpStatus, billed } = result.details;
  return {
    provider,
    key_id: keyId,
    status: result.status,
    message: result.message,
    details: { latency_ms: latencyMs, http_status: httpStatus, billed },
  };
}
