import { AppError } from '../lib/errors.ts';
import type { Dialer } from '../lib/net/dialer.ts';
import { createRateLimit } from '../lib/rate-limit.ts';
import { findCallPath, type OperatorUpstreams } from '../providers/address.ts';
import type { Provider } from '../providers/provider.ts';

const MAX_KEY_LENGTH = 1024;
/** Every check may send a DNS query to a name server that the user chose. */
const MAX_CHECKS_PER_MINUTE = 30;

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

export interface EndpointCheckDeps {
  dialer: Pick<Dialer, 'checkEndpoint'>;
  upstreams: OperatorUpstreams;
}

/** An endpoint as it is dialled. */
export interface CheckedEndpoint {
  /** Null for the provider's or operator's own address. */
  url: string | null;
  /** The end that was cut off, since calls append it themselves, e.g. `/chat/completions`; null where nothing was. */
  removedEnd: string | null;
}

/**
 * Checks an endpoint and cuts off what users copy with it from the documentation of a provider.
 * @throws AppError `validation_failed`, `endpoint_forbidden` (400), `rate_limited` (429).
 */
export type CheckEndpoint = (
  userId: string,
  provider: Provider,
  endpoint: string | null,
) => Promise<CheckedEndpoint>;

const TRAILING_SLASHES = /\/+$/;

export function createEndpointCheck({ dialer, upstreams }: EndpointCheckDeps): CheckEndpoint {
  const limit = createRateLimit({
    maxUses: MAX_CHECKS_PER_MINUTE,
    rejectionDetail: `At most ${MAX_CHECKS_PER_MINUTE} endpoints are checked per minute. Try again later.`,
  });
  return async (userId, provider, endpoint) => {
    if (endpoint === null) {
      if (needsEndpoint(provider, upstreams)) throw invalidEndpoint(`${provider.name} needs an endpoint.`);
      return { url: null, removedEnd: null };
    }
    if (!provider.requiresEndpoint)
      throw invalidEndpoint(`${provider.name} has an address of its own; leave endpoint out.`);
    await limit.consume(userId);
    const url = await dialer.checkEndpoint(endpoint);
    const address = url.href.replace(TRAILING_SLASHES, '');
    const removedEnd = findCallPath(url.pathname.replace(TRAILING_SLASHES, '')) ?? null;
    if (removedEnd === null) return { url: address, removedEnd };
    return { url: address.slice(0, -removedEnd.length).replace(TRAILING_SLASHES, ''), removedEnd };
  };
}

function invalidEndpoint(message: string): AppError {
  return new AppError('validation_failed', message, { errors: [{ path: 'endpoint', message }] });
}

/**
 * Refuses what cannot be a key of this provider, whatever the provider would answer: no key, a mask, characters that no
 * header can carry, a key that begins like another provider's. No error contains the key or a part of it.
 * @param providers every available provider, to name the one that the key belongs to.
 * @returns undefined for a key in the provider's known format. Otherwise the error that refuses it where the provider
 *   does not recognize the key: providers change their formats without notice.
 * @throws AppError `invalid_key_format`, `wrong_provider_key`, `key_too_long` (400).
 */
export function findFormatError(
  provider: Provider,
  key: string,
  providers: readonly Provider[],
): AppError | undefined {
  if (key === '') {
    if (!provider.requiresKey) return undefined;
    throw invalidFormat('A key is required.');
  }
  if (key.length > MAX_KEY_LENGTH) {
    throw new AppError('key_too_long', `A key has at most ${MAX_KEY_LENGTH} characters.`);
  }
  if (isMask(key)) throw invalidFormat('This is the mask of a stored key, not a key. Enter the key itself.');
  assertCharacters(key);
  if (provider.key.pattern.test(key)) return undefined;
  const other = findProviderByPrefix(key, providers);
  if (other !== undefined && other !== provider) {
    throw new AppError(
      'wrong_provider_key',
      `This looks like a key of ${other.name}, not of ${provider.name}.`,
    );
  }
  const hint = provider.key.hint === null ? '' : ` (its keys look like ${provider.key.hint})`;
  return invalidFormat(`This is not a key of ${provider.name}${hint}.`);
}

/** The form of a key for the log: its length, and which kinds of characters it has. Contains no part of the key. */
export function describeKeyForm(provider: Provider, key: string) {
  const kinds = { lower: /[a-z]/, upper: /[A-Z]/, digits: /[0-9]/, punctuation: /[^A-Za-z0-9]/ };
  return {
    length: key.length,
    has_known_prefix: provider.key.prefix !== '' && key.startsWith(provider.key.prefix),
    characters: Object.entries(kinds).flatMap(([name, pattern]) => (pattern.test(key) ? [name] : [])),
  };
}

/** The provider with the longest matching prefix (`sk-ant-` begins with `sk-`). Not every provider has a prefix. */
function findProviderByPrefix(key: string, providers: readonly Provider[]): Provider | undefined {
  const matching = providers.filter(({ key: { prefix } }) => prefix !== '' && key.startsWith(prefix));
  return matching.reduce<Provider | undefined>(
    (longest, one) =>
      longest === undefined || one.key.prefix.length > longest.key.prefix.length ? one : longest,
    undefined,
  );
}

/** The masks that pages and responses show: `***stored***`, `***masked***`, `sk-…abcd`, `••••`. */
function isMask(key: string): boolean {
  return /…|^\*{3}.*\*{3}$|^[*•]+$/u.test(key.trim());
}

function assertCharacters(key: string): void {
  for (const [index, character] of Array.from(key).entries()) {
    const problem = describeInvalidCharacter(character);
    if (problem !== undefined) throw invalidFormat(`Character ${index + 1} of the key is ${problem}.`);
  }
}

function describeInvalidCharacter(character: string): string | undefined {
  if (character === '\n' || character === '\r') return 'a line break';
  if (/^\s$/u.test(character)) return 'a blank';
  return /^[\x21-\x7e]$/.test(character) ? undefined : 'not printable ASCII';
}

function invalidFormat(detail: string): AppError {
  return new AppError('invalid_key_format', detail);
}
