import { lookup as askSystem, Resolver } from 'node:dns/promises';
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import { normalizeHostName } from './addresses.ts';

/**
 * Answers every address of a host name; rejects when there is none. When `signal` ends, nobody waits for
 * the answer any more, and a look-up that can be given up is.
 */
export type HostLookup = (host: string, signal?: AbortSignal) => Promise<string[]>;

export interface UntrustedHostLookupOptions {
  /** For tests: asked instead of the system's name servers, as `address:port`. */
  nameServers?: readonly string[];
  /** For tests. */
  hostsFile?: string;
}

/** From the first question to the last answer, whatever the number of name servers. */
const LOOKUP_TIMEOUT_MS = 2_500;
const QUERY_TIMEOUT_MS = 1_000;

/**
 * All addresses of a host; an address is its own answer. Rejects when there is none.
 * @param host name or address, IPv6 with or without brackets.
 */
export async function resolveHost(host: string, lookup: HostLookup, signal?: AbortSignal): Promise<string[]> {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  // Literals never pass a look-up hook of net or undici: they are answered here so that they get checked.
  if (isIP(bare) !== 0) return [bare];
  const answer = await lookup(bare, signal);
  if (answer.length === 0) throw new Error('the name has no address');
  return answer;
}

/**
 * The system's own way (getaddrinfo), for names that the operator wrote: mDNS, search domains and the like
 * count, and so does what our database and Keycloak clients see. It holds a thread until the system gives
 * up, and libuv lends all look-ups of the process two threads: one look-up per name serves all who ask
 * meanwhile, so that no number of requests takes more than that.
 */
export function createSystemHostLookup(): HostLookup {
  const pending = new Map<string, Promise<string[]>>();
  return (host) => {
    const known = pending.get(host);
    if (known !== undefined) return known;
    const answer = askSystem(host, { all: true })
      .then((entries) => entries.map((entry) => entry.address))
      .finally(() => pending.delete(host));
    pending.set(host, answer);
    return answer;
  };
}

/**
 * The way for names that users bring: whoever runs a name's server decides how long an answer takes, so no
 * thread waits for it. The hosts file and `localhost` come first, then DNS (c-ares, on the event loop). What only
 * the system knows (mDNS, search domains, other sources of nsswitch) is not found.
 */
export function createUntrustedHostLookup(options: UntrustedHostLookupOptions = {}): HostLookup {
  const readHosts = createHostsFileReader(options.hostsFile ?? '/etc/hosts');
  return async (host, signal) => {
    const name = normalizeHostName(host);
    const listed = (await readHosts()).get(name);
    if (listed !== undefined) return listed;
    // Never a question for DNS (RFC 6761).
    if (name === 'localhost' || name.endsWith('.localhost')) return ['127.0.0.1', '::1'];
    return queryNameServers(name, options.nameServers, signal);
  };
}

/** Both families at once; what has answered in time counts, IPv4 first since it is reachable nearly everywhere. */
async function queryNameServers(
  name: string,
  nameServers: readonly string[] | undefined,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  signal?.throwIfAborted();
  // A new one each time: it reads the system's name servers once, and laptops change networks; and its
  // `cancel` ends the questions of this look-up alone.
  const resolver = new Resolver({ timeout: QUERY_TIMEOUT_MS, tries: 2 });
  if (nameServers !== undefined) resolver.setServers(nameServers);
  const cancel = () => {
    resolver.cancel();
  };
  const timer = setTimeout(cancel, LOOKUP_TIMEOUT_MS);
  signal?.addEventListener('abort', cancel);
  try {
    const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    const addresses = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
    const failure = answers.find((answer) => answer.status === 'rejected');
    if (addresses.length === 0 && failure !== undefined) throw failure.reason;
    return addresses;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  }
}

/** Reads the hosts file, anew when it has changed. One that cannot be read lists nothing, as for the system. */
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

/** hosts(5): an address and its names per line; a name may stand in several. */
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
