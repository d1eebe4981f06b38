import { classifyAddress, normalizeHostName, parseIpAddress } from './addresses.ts';

/** Names of private networks (RFC 6761, RFC 6762, RFC 8375, and by custom). */
const PRIVATE_NAME =
  /(^|\.)(localhost|local|internal|intranet|lan|home|corp|private|localdomain|home\.arpa|svc|test|invalid|onion)$/;
const NO_OWN_ADDRESSES: ReadonlySet<string> = new Set();

/**
 * True for an `https` URL without a user, at a public address or at a name that is not private by its form. Names are
 * not resolved: this is for addresses that another server fetches, which resolves them itself, and later. False for
 * text that parsers read differently.
 */
export function isPublicHttpsAddress(text: string): boolean {
  const url = /^https:\/\/[^\s\p{Cc}\\]+$/u.test(text) ? URL.parse(text) : null;
  if (url?.username !== '' || url.password !== '') return false;
  const host = normalizeHostName(url.hostname).replace(/^\[|\]$/g, '');
  const address = parseIpAddress(host);
  if (address !== undefined) return classifyAddress(address, NO_OWN_ADDRESSES) === 'public';
  return /^[^.]+(\.[^.]+)+$/.test(host) && !PRIVATE_NAME.test(host);
}
