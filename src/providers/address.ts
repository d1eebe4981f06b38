import type { Provider } from './provider.ts';

/** Addresses and credentials that the operator has set. */
export interface OperatorUpstreams {
  /** Provider id -> address, from `UPSTREAM_<PROVIDER>_URL`. */
  overrides: Readonly<Record<string, string>>;
}

export interface UpstreamAddress {
  /** What precedes `/chat/completions`, without a slash at the end. */
  baseUrl: string;
  /** True when a user brought it: such an address is dialled under the rules for users. */
  isUserSupplied: boolean;
  /** True when the operator set it, rather than the provider's file. */
  isOperatorSupplied: boolean;
}

/**
 * Where a key goes: to the endpoint sealed in it, or to its provider's address, and nowhere else.
 * @param endpoint the endpoint from inside the key's token; null when it has none.
 */
export function findKeyAddress(
  provider: Provider,
  endpoint: string | null,
  upstreams: OperatorUpstreams,
): UpstreamAddress | undefined {
  if (endpoint !== null) return { baseUrl: endpoint, isUserSupplied: true, isOperatorSupplied: false };
  const override = upstreams.overrides[provider.id];
  if (override !== undefined) return { baseUrl: override, isUserSupplied: false, isOperatorSupplied: true };
  return provider.baseUrl === null
    ? undefined
    : { baseUrl: provider.baseUrl, isUserSupplied: false, isOperatorSupplied: false };
}

/** Where the system's key goes: its own base URL, else the operator's override, else the provider's address. */
export function findSystemAddress(
  provider: Provider,
  baseUrl: string | undefined,
  upstreams: OperatorUpstreams,
): UpstreamAddress | undefined {
  if (baseUrl !== undefined) return { baseUrl, isUserSupplied: false, isOperatorSupplied: true };
  return findKeyAddress(provider, null, upstreams);
}
