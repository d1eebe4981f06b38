import { createHash } from 'node:crypto';
import { MODELS_PATH, SURFACE_PATHS, type Provider } from './provider.ts';

/** Upstream addresses that the operator has set. */
export interface OperatorUpstreams {
  /** Provider id -> address, from `UPSTREAM_<PROVIDER>_URL`. */
  overrides: Readonly<Record<string, string>>;
}

export interface UpstreamAddress {
  /** The URL in front of the paths of `Provider.surfaces`, without a trailing slash. */
  baseUrl: string;
  /** True when it comes from a user. The dialer then applies the egress rules for users. */
  isUserSupplied: boolean;
  /** True when the operator set it; false for the address in the provider's file. */
  isOperatorSupplied: boolean;
}

/**
 * Returns the only address to which a key may be sent: the endpoint encrypted with it, else its provider's address.
 * @param endpoint the endpoint from the decrypted token; null when it has none.
 * @returns undefined when neither exists.
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

/** Returns the address for the system's key: its own base URL, else the operator's override, else the provider's address. */
export function findSystemAddress(
  provider: Provider,
  baseUrl: string | undefined,
  upstreams: OperatorUpstreams,
): UpstreamAddress | undefined {
  if (baseUrl !== undefined) return { baseUrl, isUserSupplied: false, isOperatorSupplied: true };
  return findKeyAddress(provider, null, upstreams);
}

/** The slug of keys without an endpoint of their own. */
export const OPERATOR_SLUG = 'operator';

/**
 * Names an endpoint in model names and headers: host, port unless it is the scheme's default, and 4 hexadecimal digits
 * of SHA-256 of the path unless it is empty or `/v1`. Never the label, which its owner can change.
 * @returns null where the provider has an address of its own; `operator` for a key that uses the operator's address.
 */
export function toEndpointSlug({ requiresEndpoint }: Provider, endpoint: string | null): string | null {
  if (!requiresEndpoint) return null;
  if (endpoint === null || !URL.canParse(endpoint)) return OPERATOR_SLUG;
  const { hostname, port, pathname } = new URL(endpoint);
  const path = pathname.replace(/\/+$/, '');
  const pathHash = createHash('sha256').update(path).digest('hex').slice(0, 4);
  return [
    hostname.replace(/^\[|\]$/g, ''),
    ...(port === '' ? [] : [port]),
    ...(path === '' || path === '/v1' ? [] : [pathHash]),
  ].join('-');
}

/** Paths that the SDKs of OpenAI append to their base URL. A path comes before its own end. */
export const OPENAI_CALL_PATHS: readonly string[] = [
  SURFACE_PATHS.chat,
  '/completions',
  SURFACE_PATHS.responses,
  SURFACE_PATHS.embeddings,
  MODELS_PATH,
];
/** The same for Anthropic, whose SDKs append them with `/v1`. */
export const ANTHROPIC_CALL_PATHS: readonly string[] = [
  `${SURFACE_PATHS.messages}/count_tokens`,
  SURFACE_PATHS.messages,
];

/**
 * Finds the call that users and operators copy with a base URL from the documentation of a provider.
 * @param pathname of a base URL, without trailing slashes.
 * @returns the end that calls append themselves, e.g. `/chat/completions`. Alone, `/messages` may be a base URL; after
 *   `/v1` it is Anthropic's call.
 */
export function findCallPath(pathname: string): string | undefined {
  return (
    OPENAI_CALL_PATHS.find((path) => pathname.endsWith(path)) ??
    ANTHROPIC_CALL_PATHS.find((path) => pathname.endsWith(`/v1${path}`))
  );
}
