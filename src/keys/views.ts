import type { Provider } from '../providers/provider.ts';
import type { Tier } from '../config/tiers.ts';
import type { KeyStatus } from './key-status-store.ts';
import type { KeyTestResult } from './key-tester.ts';
import type { StoredKey } from './stored-key.ts';
import type { KeyStats, KeyTested, KeyView, ProviderView } from './schema.ts';

export interface KeyWithStatus {
  provider: Provider;
  stored: StoredKey;
  status: KeyStatus;
}

export function keyView({ provider, stored, status }: KeyWithStatus): KeyView {
  return {
    id: stored.id,
    scope: 'personal',
    provider: provider.id,
    provider_name: provider.name,
    key_preview: stored.mask,
    label: stored.label,
    endpoint: stored.endpoint,
    enabled: stored.enabled,
    added_date: stored.createdAt,
    updated_date: stored.updatedAt,
    expires_at: stored.expiresAt,
    last_used: status.lastUsedAt?.toISOString() ?? null,
    last_tested: status.lastTestedAt?.toISOString() ?? null,
    test_status: status.testStatus,
    test_message: status.testMessage,
  };
}

export function keyTestView(provider: string, keyId: string, result: KeyTestResult): KeyTested {
  const { latencyMs, httpStatus, billed } = result.details;
  return {
    provider,
    key_id: keyId,
    status: result.status,
    message: result.message,
    details: { latency_ms: latencyMs, http_status: httpStatus, billed },
  };
}

/** @param requiresEndpoint whether a key needs an endpoint: the operator may have set an address for all keys. */
export function providerView(provider: Provider, keyCount: number, requiresEndpoint: boolean): ProviderView {
  return {
    id: provider.id,
    name: provider.name,
    kind: provider.kind,
    key_format: provider.key.hint,
    requires_key: provider.requiresKey,
    requires_endpoint: requiresEndpoint,
    configured: keyCount > 0,
    key_count: keyCount,
    docs_url: provider.docsUrl,
    models: [...provider.models],
  };
}

export function keyStats(
  tier: Tier,
  providers: readonly Provider[],
  keys: readonly KeyWithStatus[],
): KeyStats {
  const statuses = new Map(
    providers.map(({ id }) => [
      id,
      keys.filter((key) => key.provider.id === id).map((key) => key.status.testStatus),
    ]),
  );
  const count = (test: (list: readonly string[]) => boolean) => [...statuses.values()].filter(test).length;
  return {
    total_providers: providers.length,
    configured_providers: count((list) => list.length > 0),
    tested_providers: count((list) => list.some((status) => status !== 'untested')),
    valid_providers: count((list) => list.includes('valid')),
    user_tier: tier,
    providers: Object.fromEntries(
      [...statuses].map(([id, list]) => [
        id,
        { key_count: list.length, valid_count: list.filter((status) => status === 'valid').length },
      ]),
    ),
  };
}
