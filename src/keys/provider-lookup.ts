import { AppError } from '../lib/errors.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import type { OperatorUpstreams } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';

/** @throws AppError `unknown_provider` (404). */
export function getProvider(providers: readonly Provider[], id: string): Provider {
  const provider = providers.find((known) => known.id === id);
  if (provider !== undefined) return provider;
  const known = providers.map((each) => each.id).join(', ');
  throw new AppError('unknown_provider', `There is no such provider. Available providers: ${known}.`);
}

/** True when a key of this provider needs an endpoint: neither the provider nor the operator defines an address. */
export function needsEndpoint(provider: Provider, upstreams: OperatorUpstreams): boolean {
  return provider.requiresEndpoint && upstreams.overrides[provider.id] === undefined;
}

/** Every check may send a DNS query to a name server that the user chose. */
const MAX_CHECKS_PER_MINUTE = 30;

export interface EndpointCheckDeps {
  dialer: { checkEndpoint(text: string): Promise<URL> };
  upstreams: OperatorUpstreams;
}

/**
 * Returns the endpoint as it is dialled; null for the provider's or operator's own address.
 * @throws AppError `validation_failed`, `endpoint_forbidden` (400), `rate_limited` (429).
 */
export type CheckEndpoint = (
  userId: string,
  provider: Provider,
  endpoint: string | null,
) => Promise<string | null>;

export function createEndpointCheck({ dialer, upstreams }: EndpointCheckDeps): CheckEndpoint {
  const limit = createRateLimit({
    points: MAX_CHECKS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_CHECKS_PER_MINUTE} endpoints are checked per minute. Try again later.`,
  });
  return async (userId, provider, endpoint) => {
    if (endpoint === null) {
      if (needsEndpoint(provider, upstreams)) throw invalidEndpoint(`${provider.name} needs an endpoint.`);
      return null;
    }
    if (!provider.requiresEndpoint)
      throw invalidEndpoint(`${provider.name} has an address of its own; leave endpoint out.`);
    await limit.consume(userId);
    const url = await dialer.checkEndpoint(endpoint);
    return url.href.replace(/\/+$/, '');
  };
}

function invalidEndpoint(message: string): AppError {
  return new AppError('validation_failed', message, { errors: [{ path: 'endpoint', message }] });
}
