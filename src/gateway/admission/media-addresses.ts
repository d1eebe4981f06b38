import { classifyAddress, normalizeHostName, parseIpAddress } from '../../lib/net/addresses.ts';
import { fieldNotAllowed, foldName } from './request-body.ts';

/** Members that hold media, in the spellings of several vendors: `image_url`, `input_image`, `video`, `file`. */
const MEDIA_MEMBER = /^(input_)?(image|video|audio|file|document|media|source)(_url)?$/;
/** Members whose text is an address, whatever it looks like. */
const ADDRESS_MEMBER = /(^|_)ur[il]$/;
const BEGINS_LIKE_ADDRESS = /^[\s\p{Cc}]*[a-z][a-z0-9+.-]*:\/\//iu;
/** Names of private networks (RFC 6761, RFC 6762, RFC 8375, and by custom). */
const PRIVATE_NAME =
  /(^|\.)(localhost|local|internal|intranet|lan|home|corp|private|localdomain|home\.arpa)$/;
const NO_OWN_ADDRESSES: ReadonlySet<string> = new Set();

/**
 * Refuses media that an upstream would fetch from an address other than public https. On a shared payer the upstream
 * can be the operator's own, in whose network a user must not read. Names are not resolved: the upstream resolves them
 * itself, and later.
 * @param value any part of a body.
 * @throws AppError `field_not_allowed` naming the member.
 */
export function refusePrivateMedia(value: unknown, path: string, isMedia = false): void {
  if (Array.isArray(value)) {
    for (const item of value) refusePrivateMedia(item, path, isMedia);
    return;
  }
  if (typeof value === 'string') {
    const isAddress = isMedia && (ADDRESS_MEMBER.test(lastName(path)) || BEGINS_LIKE_ADDRESS.test(value));
    if (isAddress && !isPublicAddress(value)) throw fieldNotAllowed(path);
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  for (const [name, item] of Object.entries(value)) {
    const folded = foldName(name);
    refusePrivateMedia(item, `${path}.${folded}`, isMedia || MEDIA_MEMBER.test(folded));
  }
}

function lastName(path: string): string {
  return path.slice(path.lastIndexOf('.') + 1);
}

/** True for a data URL, and for https at a public address or at a name that is not private by its form. */
function isPublicAddress(text: string): boolean {
  if (text.startsWith('data:')) return true;
  const url = /^https:\/\/[^\s\p{Cc}\\]+$/u.test(text) ? URL.parse(text) : null;
  if (url?.username !== '' || url.password !== '') return false;
  const host = normalizeHostName(url.hostname).replace(/^\[|\]$/g, '');
  const address = parseIpAddress(host);
  if (address !== undefined) return classifyAddress(address, NO_OWN_ADDRESSES) === 'public';
  return host.includes('.') && !PRIVATE_NAME.test(host);
}
