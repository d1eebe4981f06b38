import { networkInterfaces } from 'node:os';
import {
  canonicalAddress,
  coversAddress,
  coversName,
  coversPort,
  effectiveAddresses,
  isThisHost,
  normalizeHostName,
  parseIpAddress,
  parseEgressRule,
  classifyAddress,
  type HostAndPort,
  type IpAddress,
} from './addresses.ts';
import { AppError } from '../errors.ts';
import { createSystemHostLookup, createUntrustedHostLookup, resolveHost, type HostLookup } from './dns.ts';

export interface EgressOptions {
  mode: 'local' | 'deployed';
  /** EGRESS_ALLOW; undefined is the mode's default: loopback and LAN in local mode, else nothing. */
  allow: string[] | undefined;
  /** EGRESS_DENY; wins over `allow`. */
  deny: string[];
  /** Our own listeners, database and Keycloak (names allowed). Called for every connection. */
  forbidden: () => readonly HostAndPort[];
  /** Receives why an address was refused, for the log: users receive the same error for every reason. */
  onRefused?: (refusal: { host: string; port: number; reason: 'not_found' | 'forbidden' }) => void;
  /** For tests: looks up all names. */
  lookup?: HostLookup;
  /** For tests: name servers for users' names, as `address:port`. */
  nameServers?: readonly string[];
  /** For tests: addresses of this host's interfaces. */
  ownAddresses?: () => string[];
}

export interface AllowedAddress {
  address: string;
  isPublic: boolean;
}

export interface EgressPolicy {
  /**
   * Resolves a user's host and checks every address: one bad address refuses all. Only the returned addresses may
   * be dialled, and only for this connection. Host names from users are resolved on the event loop (`dns.ts`), because a
   * slow lookup by the system's resolver would occupy a thread; names in `allow`, `deny` and `forbidden` are the
   * operator's and use the system's resolver.
   * @param host name or address, IPv6 with or without brackets.
   * @param signal cancels the lookup.
   * @throws AppError `endpoint_forbidden`, also when the host does not exist: the error must not tell which names exist
   *   in the operator's network; `upstream_unreachable` when the host, or a name needed to check it, cannot be
   *   resolved at the moment.
   */
  resolveAllowed(host: string, port: number, signal?: AbortSignal): Promise<AllowedAddress[]>;
}

const LOCAL_ALLOW = ['127.0.0.0/8', '::1', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'];
const MAX_ENDPOINT_LENGTH = 256;
const ENDPOINT_PATTERN =
  /^(https?):\/\/(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(:\d{1,5})?((?:\/[a-z0-9._~-]+)*)\/?$/i;

/**
 * Reads an endpoint: http or https, host, port, and a path of `[A-Za-z0-9._~/-]`. The result is canonical: numeric
 * hosts are dotted, a trailing dot of the host and a trailing slash of the path are removed.
 * @throws AppError `endpoint_forbidden` for anything else.
 */
export function parseEndpoint(text: string): URL {
  const match = text.length <= MAX_ENDPOINT_LENGTH ? ENDPOINT_PATTERN.exec(text) : null;
  const [, scheme = '', host = '', port = '', path = ''] = match ?? [];
  // The pattern tests the raw text: `new URL` drops tabs, decodes %31 and normalizes full-width digits.
  const hasDotSegment = path.split('/').some((segment) => segment === '.' || segment === '..');
  const url = URL.parse(`${scheme}://${normalizeHostName(host)}${port}${path}`);
  if (match === null || hasDotSegment || url === null || url.port === '0') {
    throw new AppError(
      'endpoint_forbidden',
      'An endpoint is http:// or https:// with a host, an optional port and a plain path, at most 256 characters, without user, query or fragment.',
    );
  }
  return url;
}

/** The port of `url`, or the default port of its protocol. */
export function effectivePort(url: URL): number {
  return url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port);
}

/**
 * Builds the policy for users' addresses.
 * @throws Error naming the invalid entry of `allow` or `deny`.
 */
export function createEgressPolicy(options: EgressOptions): EgressPolicy {
  const allow = (options.allow ?? (options.mode === 'local' ? LOCAL_ALLOW : [])).map(parseEgressRule);
  const deny = options.deny.map(parseEgressRule);
  const ownAddresses = options.ownAddresses ?? listInterfaceAddresses;
  const systemLookup = options.lookup ?? createSystemHostLookup();
  const untrustedLookup = options.lookup ?? createUntrustedHostLookup(options);

  function refuse(host: string, port: number, reason: 'not_found' | 'forbidden'): AppError {
    options.onRefused?.({ host, port, reason });
    return endpointForbidden();
  }

  /** Addresses that must not be dialled at this port. Resolved for every connection, because DNS entries change. */
  async function resolveBlocked(port: number) {
    const services = options.forbidden().filter((service) => service.port === port);
    const names = deny.flatMap((rule) => (rule.kind === 'name' && coversPort(rule, port) ? [rule.name] : []));
    const [forbidden, denied] = await Promise.all([
      Promise.all(services.map((service) => resolveHost(service.host, systemLookup))),
      Promise.all(names.map((name) => resolveHost(name, systemLookup).catch(emptyIfNotFound))),
    ]);
    return {
      forbidden: forbidden.flat().flatMap(toComparableAddresses),
      denied: denied.flat().flatMap(toComparableAddresses),
    };
  }

  async function resolveAllowed(host: string, port: number, signal?: AbortSignal): Promise<AllowedAddress[]> {
    const hostAddresses = new Set(ownAddresses().map(canonicalAddress));
    const isAllowedName = allow.some((rule) => coversName(rule, host, port));
    // A name in `allow` is the operator's: only the system's resolver may know it.
    const lookup = isAllowedName ? systemLookup : untrustedLookup;
    const [addresses, blocked] = await Promise.all([
      resolveHost(host, lookup, signal).catch(emptyIfAbsent),
      resolveBlocked(port),
    ]).catch((cause: unknown) => {
      throw new AppError('upstream_unreachable', "The endpoint's host could not be resolved.", { cause });
    });
    if (addresses.length === 0) throw refuse(host, port, 'not_found');
    const blockedAddresses = new Set([...blocked.forbidden, ...blocked.denied].map(String));
    // Our listener may be bound to all addresses of this host: its port is refused on each of them.
    const isOurPort = blocked.forbidden.some((blockedAddress) => isThisHost(blockedAddress, hostAddresses));
    const isDeniedName = deny.some((rule) => coversName(rule, host, port));

    function isRefused(address: IpAddress): boolean {
      const effective = effectiveAddresses(address);
      const candidates = [address, ...effective];
      if (
        candidates.some(
          (candidate) =>
            blockedAddresses.has(candidate.toString()) || (isOurPort && isThisHost(candidate, hostAddresses)),
        )
      )
        return true;
      if (candidates.some((candidate) => deny.some((rule) => coversAddress(rule, candidate, port))))
        return true;
      if (isAllowedName) return false;
      // An address of this host must be allowed itself, not only the IPv4 addresses embedded in it.
      return (hostAddresses.has(address.toString()) ? candidates : effective).some(
        (candidate) =>
          classifyAddress(candidate, hostAddresses) !== 'public' &&
          !allow.some((rule) => coversAddress(rule, candidate, port)),
      );
    }

    return addresses.map((text) => {
      const address = parseIpAddress(text);
      const addressClass = classifyAddress(address, hostAddresses);
      if (isDeniedName || address === undefined || addressClass === 'never' || isRefused(address))
        throw refuse(host, port, 'forbidden');
      return { address: text, isPublic: addressClass === 'public' };
    });
  }

  return { resolveAllowed };
}

/** The same text for every refused address and for a name that does not exist: it must not reveal what is there. */
export function endpointForbidden(): AppError {
  return new AppError(
    'endpoint_forbidden',
    'The host was not found, or may not be reached from here. Check the address; the operator can allow private ones with EGRESS_ALLOW.',
  );
}

function listInterfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((entries) =>
    (entries ?? []).map((entry) => entry.address),
  );
}

/** @throws Error for a text that is not an address: it could not be compared. */
function toComparableAddresses(text: string): readonly IpAddress[] {
  const address = parseIpAddress(text);
  if (address === undefined) throw new Error('the lookup returned something that is not an address');
  return [address, ...effectiveAddresses(address)];
}

/** A user's name that does not exist, or has no address. After any other error its addresses are unknown. */
function emptyIfAbsent(error: unknown): string[] {
  return (error as { code?: unknown }).code === 'ENODATA' ? [] : emptyIfNotFound(error);
}

/** A denied name that does not exist blocks nothing. After any other error it is unknown what it blocks. */
function emptyIfNotFound(error: unknown): string[] {
  if ((error as { code?: unknown }).code === 'ENOTFOUND') return [];
  throw error;
}
