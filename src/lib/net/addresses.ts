import { isIP } from 'node:net';
import ipaddr from 'ipaddr.js';

/** A TCP port of a host: a name, or an address; `0.0.0.0` and `::` are every address of this host. */
export interface HostAndPort {
  host: string;
  port: number;
}

export type IpAddress = ipaddr.IPv4 | ipaddr.IPv6;

/**
 * Whether a user's endpoint may have an address: `public` always, `private` only if the operator allows it, `never`
 * not even then.
 */
export type AddressClass = 'public' | 'private' | 'never';

/** Metadata services that hand out cloud credentials without authentication: AWS, Azure, Alibaba, Google. */
const METADATA_ADDRESSES = [
  '169.254.169.254',
  'fd00:ec2::254',
  '168.63.129.16',
  '100.100.100.200',
  'fd20:ce::254',
];
const PRIVATE_RANGES: readonly string[] = ['loopback', 'private', 'carrierGradeNat', 'uniqueLocal'];
const NAT64 = ipaddr.IPv6.parse('64:ff9b::');
const GLOBAL_UNICAST = ipaddr.IPv6.parse('2000::');

/** Reads an address in its strict form: no octal, hexadecimal or short parts, no zone. */
export function parseIpAddress(text: string): IpAddress | undefined {
  // ipaddr.js would also accept 0177.1 and 2130706433; URL parsing has normalized those forms before.
  return isIP(text) === 0 || text.includes('%') ? undefined : ipaddr.parse(text);
}

/** The one spelling of an address that is used for comparison. */
export function canonicalAddress(text: string): string {
  return parseIpAddress(text)?.toString() ?? text;
}

/**
 * The addresses that packets to `address` reach: itself, or the IPv4 addresses embedded in an IPv6 address
 * (mapped and compatible RFC 4291, NAT64 RFC 6052, 6to4 RFC 3056, Teredo RFC 4380: server and client).
 * Each of them must pass the policy. In the local-use NAT64 prefix (RFC 8215) the position of the IPv4 address is
 * unknown; such an address is returned unchanged and its range is refused.
 */
export function effectiveAddresses(address: IpAddress): readonly IpAddress[] {
  if (address instanceof ipaddr.IPv4) return [address];
  const bytes = address.toByteArray();
  const embedded = (start: number, invert = 0) =>
    new ipaddr.IPv4(bytes.slice(start, start + 4).map((byte) => byte ^ invert));
  const range = address.range();
  if (range === 'ipv4Mapped' || isIpv4Compatible(address) || address.match(NAT64, 96)) return [embedded(12)];
  if (range === '6to4') return [embedded(2)];
  if (range === 'teredo') return [embedded(4), embedded(12, 0xff)];
  return [address];
}

function isIpv4Compatible(address: ipaddr.IPv6): boolean {
  const range = address.range();
  return (
    range !== 'loopback' && range !== 'unspecified' && address.parts.slice(0, 6).every((part) => part === 0)
  );
}

/**
 * Classifies an address by all its effective addresses; the strictest class wins. `undefined` is `never`.
 * @param ownAddresses canonical addresses of this host's interfaces. They are never public, because services
 *   that are meant for this host only may listen on them.
 */
export function classifyAddress(
  address: IpAddress | undefined,
  ownAddresses: ReadonlySet<string>,
): AddressClass {
  if (address === undefined) return 'never';
  const classes = effectiveAddresses(address).map((effective) =>
    classifyEffectiveAddress(effective, ownAddresses),
  );
  if (classes.includes('never')) return 'never';
  return classes.includes('private') || ownAddresses.has(address.toString()) ? 'private' : 'public';
}

function classifyEffectiveAddress(address: IpAddress, ownAddresses: ReadonlySet<string>): AddressClass {
  const text = address.toString();
  if (METADATA_ADDRESSES.includes(text)) return 'never';
  const range: string = address.range();
  if (PRIVATE_RANGES.includes(range)) return 'private';
  // Link-local, multicast, broadcast, unspecified, documentation, benchmarking and similar ranges.
  if (range !== 'unicast') return 'never';
  // IANA assigns global unicast in 2000::/3 only, but ipaddr.js reports unassigned ranges as `unicast`.
  if (address instanceof ipaddr.IPv6 && !address.match(GLOBAL_UNICAST, 3)) return 'never';
  return ownAddresses.has(text) ? 'private' : 'public';
}

/** True for an address that always leads to this host. */
export function isThisHost(address: IpAddress, ownAddresses: ReadonlySet<string>): boolean {
  const range: string = address.range();
  return range === 'loopback' || range === 'unspecified' || ownAddresses.has(address.toString());
}

/** True for `localhost` and for loopback addresses, IPv6 with or without brackets. */
export function isLoopbackHost(host: string): boolean {
  const range: string | undefined = parseIpAddress(/^\[(.*:.*)\]$/.exec(host)?.[1] ?? host)?.range();
  return host === 'localhost' || range === 'loopback';
}

/** One entry of EGRESS_ALLOW or EGRESS_DENY. Ports are inclusive. */
export type EgressRule = { fromPort: number; toPort: number } & (
  { kind: 'network'; address: IpAddress; prefix: number } | { kind: 'name'; name: string }
);

/** Bracketed (port optional), without colon (port optional), or a bare IPv6 address or range (no port). */
const RULE_PATTERN =
  /^(?:\[([^[\]]+)\](\/\d+)?|([^:[\]]+)|([^:[\]]*:[^[\]]*:[^[\]]*))(?::(\d{1,5})(?:-(\d{1,5}))?)?$/;
const HOST_NAME_PATTERN = /^(?=.{1,253}$)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/;

/**
 * Reads `CIDR-or-host[:port[-port]]`. IPv6 with a port needs brackets (`[fd00::]/8:443`).
 * @throws Error naming the rule.
 */
export function parseEgressRule(text: string): EgressRule {
  const match = RULE_PATTERN.exec(text);
  const host = match?.[1] === undefined ? (match?.[3] ?? match?.[4]) : match[1] + (match[2] ?? '');
  const fromPort = Number(match?.[5] ?? 0);
  const toPort = Number(match?.[6] ?? match?.[5] ?? 65_535);
  const target = host === undefined ? undefined : parseRuleTarget(host.toLowerCase());
  const hasBadPort = toPort > 65_535 || fromPort > toPort || match?.[5] === '0';
  if (target === undefined || hasBadPort) {
    throw new Error(`"${text}" is not an address, range or host name with an optional port or port range`);
  }
  return { ...target, fromPort, toPort };
}

function parseRuleTarget(host: string) {
  const [text = '', prefixText, ...rest] = host.split('/');
  const address = parseIpAddress(text);
  if (address === undefined) {
    // URL parsers read a name whose last label is a number as an IPv4 address.
    const name = normalizeHostName(host);
    return HOST_NAME_PATTERN.test(name) && !/(?:^|\.)(?:\d+|0x[\da-f]*)$/.test(name)
      ? ({ kind: 'name', name } as const)
      : undefined;
  }
  const bits = address instanceof ipaddr.IPv4 ? 32 : 128;
  const prefix = prefixText === undefined ? bits : /^\d{1,3}$/.test(prefixText) ? Number(prefixText) : NaN;
  // Mapped addresses are compared by their IPv4 address, so such a rule would never match.
  const isMapped = address.range() === 'ipv4Mapped';
  if (rest.length > 0 || !(prefix <= bits) || isMapped) return undefined;
  return { kind: 'network', address, prefix } as const;
}

/** Lower case, without the trailing dot: the form in which host names are compared. */
export function normalizeHostName(host: string): string {
  return host.toLowerCase().replace(/\.$/, '');
}

/** True when the rule covers the address and port. Rules by name cover no address. */
export function coversAddress(rule: EgressRule, address: IpAddress, port: number): boolean {
  if (rule.kind !== 'network' || !coversPort(rule, port)) return false;
  return rule.address.kind() === address.kind() && address.match(rule.address, rule.prefix);
}

/** True when the rule covers the host name and port. Rules by address cover no name. */
export function coversName(rule: EgressRule, host: string, port: number): boolean {
  return rule.kind === 'name' && coversPort(rule, port) && rule.name === normalizeHostName(host);
}

export function coversPort(rule: EgressRule, port: number): boolean {
  return port >= rule.fromPort && port <= rule.toPort;
}
