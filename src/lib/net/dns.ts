import { lookup as lookupBySystem, Resolver } from 'node:dns/promises';
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import { normalizeHostName } from './addresses.ts';

/**
 * Resolves with all addresses of a host name; rejects when there is none. `signal` cancels the lookup where the
 * lookup supports it.
 */
export type HostLookup = (host: string, signal?: AbortSignal) => Promise<string[]>;

export interface UntrustedHostLookupOptions {
  /** For tests: used instead of the system's name servers, as `address:port`. */
  nameServers?: readonly string[];
  /** For tests. */
  hostsFile?: string;
}

/** Limit of a whole lookup, for any number of name servers. */
const LOOKUP_TIMEOUT_MS = 2_500;
const QUERY_TIMEOUT_MS = 1_000;

/**
 * Resolves with all addresses of a host; an address resolves to itself. Rejects when there is none.
 * @param host name or address, IPv6 with or without brackets.
 */
export async function resolveHost(host: string, lookup: HostLookup, signal?: AbortSignal): Promise<string[]> {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  // net and undici do not call their lookup hook for literals: they are returned here so that they are checked.
  if (isIP(bare) !== 0) return [bare];
  const addresses = await lookup(bare, signal);
  if (addresses.length === 0) throw Object.assign(new Error('the name has no address'), { code: 'ENODATA' });
  return addresses;
}

/**
 * Uses the system's resolver (getaddrinfo), for names that the operator configures. It includes mDNS and search
 * domains, and agrees with what the database and Keycloak clients resolve. Each lookup blocks a thread until the
 * system gives up, and libuv allows two such threads per process. Concurrent lookups of one name share one call.
 */
export function createSystemHostLookup(): HostLookup {
  const pending = new Map<string, Promise<string[]>>();
  return (host) => {
    const known = pending.get(host);
    if (known !== undefined) return known;
    const result = lookupBySystem(host, { all: true })
      .then((entries) => entries.map((entry) => entry.address))
      .finally(() => pending.delete(host));
    pending.set(host, result);
    return result;
  };
}

/**
 * For names that users enter. An attacker's name server decides how long a response takes, so no thread waits for
 * it. The hosts file and `localhost` come first, then DNS (c-ares, on the event loop). Names that only the system's
 * resolver knows (mDNS, search domains, other sources of nsswitch) are not found.
 */
export function createUntrustedHostLookup(options: UntrustedHostLookupOptions = {}): HostLookup {
  const readHosts = createHostsFileReader(options.hostsFile ?? '/etc/hosts');
  return async (host, signal) => {
    const name = normalizeHostName(host);
    const listed = (await readHosts()).get(name);
    if (listed !== undefined) return listed;
    // Never sent to DNS (RFC 6761).
    if (name === 'localhost' || name.endsWith('.localhost')) return ['127.0.0.1', '::1'];
    return queryNameServers(name, options.nameServers, signal);
  };
}

/** Queries both families at once and uses what arrives in time. IPv4 comes first: it is reachable almost everywhere. */
async function queryNameServers(
  name: string,
  nameServers: readonly string[] | undefined,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  signal?.throwIfAborted();
  // One resolver per lookup: a resolver reads the system's name servers only once, but laptops change networks.
  // Its `cancel` ends the queries of this lookup only.
  const resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: 2 });
  if (nameServers !== undefined) resolver.setServers(nameServers);
  const cancel = () => {
    resolver.cancel();
  };
  const timer = setTimeout(cancel, LOOKUP_TIMEOUT_MS);
  signal?.addEventListener('abort', cancel);
  try {
    const results = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    const addresses = results.flatMap((result) => (result.status === 'fulfilled' ? result.value : []));
    const failure = results.find((result) => result.status === 'rejected');
    if (addresses.length === 0 && failure !== undefined) throw failure.reason;
    return addresses;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  }
}

/** Reads the hosts file, again when it has changed. An unreadable file counts as empty, as for the system. */
function createHostsFileReader(path: string): () => Promise<ReadonlyMap<string, string[]>> {
  let known: { version: string; hosts: ReadonlyMap<string, string[]> } | undefined;
  return async () => {
    try {
      const { ino, size, mtimeMs } = await stat(path);
      const version = [ino, size, mtimeMs].join(' ');
      if (known?.version !== version) known = { version, hosts: parseHosts(await readFile(path, 'utf8')) };
      return known.hosts;
    } catch {
      return new Map();
    }
  };
}

/** hosts(5): an address and its names per line; a name may occur in several lines. */
function parseHosts(text: string): Map<string, string[]> {
  const hosts = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [address = '', ...names] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (isIP(address) === 0) continue;
    for (const name of new Set(names.map(normalizeHostName))) {
      const others = hosts.get(name);
      if (others === undefined) hosts.set(name, [address]);
      else if (!others.includes(address)) others.push(address);
    }
  }
  return hosts;
}
