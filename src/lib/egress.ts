import { networkInterfaces } from 'node:os';
import {
  canonicalAddress,
  coversAddress,
  coversName,
  coversPort,
  facesOf,
  isThisHost,
  normalName,
  parseAddress,
  parseEgressRule,
  reachOf,
  type Address,
} from './addresses.ts';
import { AppError } from './errors.ts';
import { createOperatorLookup, createUserLookup, resolveHost, type Lookup } from './names.ts';

export interface Spot {
  /** A name or an address; `0.0.0.0` and `::` stand for every address of this host. */
  host: string;
  port: number;
}

export interface EgressOptions {
  mode: 'local' | 'deployed';
  /** EGRESS_ALLOW; undefined is the mode's default: loopback and LAN in local mode, else nothing. */
  allow: string[] | undefined;
  /** EGRESS_DENY; wins over `allow`. */
  deny: string[];
  /** Our own listeners, database and Keycloak (names allowed); asked anew on every look-up. */
  forbidden: () => readonly Spot[];
  /** For tests: looks up all names. */
  lookup?: Lookup;
  /** For tests: asked for names that users bring, as `address:port`. */
  nameServers?: readonly string[];
  /** For tests: addresses of this host's interfaces. */
  ownAddresses?: () => string[];
}

export interface AdmittedAddress {
  address: string;
  isPublic: boolean;
}

export interface EgressPolicy {
  /**
   * Resolves a host that a user named and checks every address of the answer: one bad address refuses
   * all. Only the addresses returned may be dialled, and only for this one connection. Names that users
   * bring are looked up without a thread; names of the operator (`allow`, `deny`, `forbidden`) as the
   * system does it.
   * @param host name or address, IPv6 with or without brackets.
   * @param signal gives up the look-up.
   * @throws AppError `endpoint_forbidden`, or `upstream_unreachable` when a name cannot be resolved: the
   *   host's own, or one that has to be known to check it.
   */
  admit(host: string, port: number, signal?: AbortSignal): Promise<AdmittedAddress[]>;
}

const LOCAL_ALLOW = ['127.0.0.0/8', '::1', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'];
const ENDPOINT_MAX_LENGTH = 256;
const ENDPOINT =
  /^(https?):\/\/(\[[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?)(:\d{1,5})?((?:\/[a-z0-9._~-]+)*)\/?$/i;

/**
 * Reads an endpoint: http or https, host, port, and a path of `[A-Za-z0-9._~/-]`. The result is
 * canonical: numeric hosts are dotted, a dot behind the host and a slash behind the path are gone.
 * @throws AppError `endpoint_forbidden` for anything else (design: one grammar, no user, query, fragment).
 */
export function parseEndpoint(text: string): URL {
  const match = text.length <= ENDPOINT_MAX_LENGTH ? ENDPOINT.exec(text) : null;
  const [, scheme = '', host = '', port = '', path = ''] = match ?? [];
  // The pattern runs on the raw text: `new URL` drops tabs, decodes %31 and folds full-width digits.
  const hasDotSegment = path.split('/').some((segment) => segment === '.' || segment === '..');
  const url = URL.parse(`${scheme}://${normalName(host)}${port}${path}`);
  if (match === null || hasDotSegment || url === null || url.port === '0') {
    throw new AppError(
      'endpoint_forbidden',
      `An endpoint is http:// or https:// with a host, perhaps a port, and a plain path: no user, query or fragment, at most 256 characters.`,
    );
  }
  return url;
}

/** The port that a connection for `url` goes to. */
export function portOf(url: URL): number {
  return url.port === '' ? (url.protocol === 'https:' ? 443 : 80) : Number(url.port);
}

/**
 * Builds the policy for addresses that users bring.
 * @throws Error naming the entry when `allow` or `deny` holds one that is not a rule.
 */
export function createEgressPolicy(options: EgressOptions): EgressPolicy {
  const allow = (options.allow ?? (options.mode === 'local' ? LOCAL_ALLOW : [])).map(parseEgressRule);
  const deny = options.deny.map(parseEgressRule);
  const ownAddresses = options.ownAddresses ?? interfaceAddresses;
  const operatorLookup = options.lookup ?? createOperatorLookup();
  const userLookup = options.lookup ?? createUserLookup(options);

  /** What may not be dialled at this port, resolved now, since names move. */
  async function readBans(port: number) {
    const spots = options.forbidden().filter((spot) => spot.port === port);
    const names = deny.flatMap((rule) => (rule.kind === 'name' && coversPort(rule, port) ? [rule.name] : []));
    const [forbidden, denied] = await Promise.all([
      Promise.all(spots.map((spot) => resolveHost(spot.host, operatorLookup))),
      Promise.all(names.map((name) => resolveHost(name, operatorLookup).catch(emptyWhenAbsent))),
    ]);
    return { forbidden: forbidden.flat().flatMap(readFaces), denied: denied.flat().flatMap(readFaces) };
  }

  async function admit(host: string, port: number, signal?: AbortSignal): Promise<AdmittedAddress[]> {
    const own = new Set(ownAddresses().map(canonicalAddress));
    const isAllowedName = allow.some((rule) => coversName(rule, host, port));
    // A name that the operator allows is the operator's: it may lie where only the system finds it.
    const lookup = isAllowedName ? operatorLookup : userLookup;
    const [answer, bans] = await Promise.all([resolveHost(host, lookup, signal), readBans(port)]).catch(
      (cause: unknown) => {
        throw new AppError('upstream_unreachable', "The endpoint's host could not be resolved.", { cause });
      },
    );
    const banned = new Set([...bans.forbidden, ...bans.denied].map(String));
    // A listener of ours may be bound to all addresses of this host: its port is closed on each of them.
    const isOurPort = bans.forbidden.some((face) => isThisHost(face, own));
    const isDeniedName = deny.some((rule) => coversName(rule, host, port));

    function isRefused(address: Address): boolean {
      const faces = facesOf(address);
      const forms = [address, ...faces];
      if (forms.some((form) => banned.has(form.toString()) || (isOurPort && isThisHost(form, own))))
        return true;
      if (forms.some((form) => deny.some((rule) => coversAddress(rule, form, port)))) return true;
      if (isAllowedName) return false;
      return (own.has(address.toString()) ? forms : faces).some(
        (form) => reachOf(form, own) !== 'public' && !allow.some((rule) => coversAddress(rule, form, port)),
      );
    }

    return answer.map((text) => {
      const address = parseAddress(text);
      const reach = reachOf(address, own);
      if (isDeniedName || address === undefined || reach === 'never' || isRefused(address)) throw forbidden();
      return { address: text, isPublic: reach === 'public' };
    });
  }

  return { admit };
}

/** The one wording for every address that is refused: it must not tell what stands there. */
export function forbidden(): AppError {
  return new AppError('endpoint_forbidden', 'This endpoint may not be reached from here.');
}

function interfaceAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((entries) =>
    (entries ?? []).map((entry) => entry.address),
  );
}

/** @throws Error for an answer that is no address: what cannot be compared must not be let through. */
function readFaces(text: string): readonly Address[] {
  const address = parseAddress(text);
  if (address === undefined) throw new Error('the answer holds something that is not an address');
  return [address, ...facesOf(address)];
}

/** A denied name that does not exist bans nothing; any other failure leaves open what it bans. */
function emptyWhenAbsent(error: unknown): string[] {
  if ((error as { code?: unknown }).code === 'ENOTFOUND') return [];
  throw error;
}
