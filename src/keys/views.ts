import type { Provider } from '../providers/provider.ts';
import type { Tier } from '../config/tiers.ts';
import type { KeyStatus } from './key-status-store.ts';
import type { KeyTestResult } from './key-tester.ts';
import type { StoredKey } from './stored-key.ts';
import type { KeyStats, KeyTested, KeyView, ProviderView } from './schema.ts';

/** A stored key with what is known of it. */
export interface KeyWithStatus {
  provider: Provider;
  stored: StoredKey;
  status: KeyStatus;
}

export function keyView({ provider, stored, status: facts }: KeyWithStatus): KeyView {
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
    last_used: facts.lastUsedAt?.toISOString() ?? null,
    last_tested: facts.lastTestedAt?.toISOString() ?? null,
    test_status: facts.testStatus,
    test_message: facts.testMessage,
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

/** @param requiresEndpoint whether a key must name its address: the operator may have set one for all. */
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
  const count = (test: (own: readonly string[]) => boolean) => [...statuses.values()].filter(test).length;
  return {
    total_providers: providers.length,
    configured_providers: count((own) => own.length > 0),
    tested_providers: count((own) => own.some((status) => status !== 'untested')),
    valid_providers: count((own) => own.includes('valid')),
    user_tier: tier,
    providers: Object.fromEntries(
      [...statuses].map(([id, own]) => [
        id,
        { key_count: own.length, valid_count: own.filter((status) => status === 'valid').length },
      ]),
    ),
  };
}
