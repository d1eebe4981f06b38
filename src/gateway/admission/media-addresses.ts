import { classifyAddress, normalizeHostName, parseIpAddress } from '../../lib/net/addresses.ts';
import { fieldNotAllowed, foldName } from './request-body.ts';

/** Members that hold media, in the spellings of several vendors: `image_url`, `imageUrl`, `input_image`, `videos`. */
const MEDIA_MEMBER = /^(input_)?(image|video|audio|file|document|media|source)s?(_?(ur[il]|data)s?)?$/;
/** Members whose text is an address, whatever it looks like. */
const ADDRESS_MEMBER = /ur[il]s?$|^(src|href)$/;
/** Not `//` alone: media in base64 can begin with it. */
const BEGINS_LIKE_ADDRESS = /^[\s\p{Cc}]*([a-z][a-z0-9+.-]+:[\\/]{2}|(file|gs|s3|ftp|https?):)/iu;
/** Names of private networks (RFC 6761, RFC 6762, RFC 8375, and by custom). */
const PRIVATE_NAME =
  /(^|\.)(localhost|local|internal|intranet|lan|home|corp|private|localdomain|home\.arpa|svc|test|invalid|onion)$/;
/** No member that an upstream reads has a longer name. */
const MAX_NAME_LENGTH = 64;
const NO_OWN_ADDRESSES: ReadonlySet<string> = new Set();

/** What the members around a value say about it. */
interface Position {
  /** For the error. */
  path: string;
  isMedia: boolean;
  isAddress: boolean;
}

/**
 * Refuses media that an upstream would fetch from an address other than public https. On a shared payer the upstream
 * can be the operator's own, in whose network a user must not read. Names are not resolved: the upstream resolves them
 * itself, and later.
 * @param value any part of a body.
 * @throws AppError `field_not_allowed` naming the member.
 */
export function refusePrivateMedia(value: unknown, path: string): void {
  refuseAt(value, { path, isMedia: false, isAddress: false });
}

function refuseAt(value: unknown, position: Position): void {
  if (Array.isArray(value)) for (const item of value) refuseAt(item, position);
  else if (typeof value === 'string') {
    const isAddress = position.isMedia && (position.isAddress || BEGINS_LIKE_ADDRESS.test(value));
    if (isAddress && !isPublicAddress(value)) throw fieldNotAllowed(position.path);
  } else if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value);
    // A part of a message can name its kind beside its address: `{"type": "image_url", "url": ...}`.
    const isPart = members.some(([name, item]) => name === 'type' && MEDIA_MEMBER.test(String(item)));
    for (const [name, item] of members) refuseAt(item, toMemberPosition(position, name, isPart));
  }
}

/** Judges a name once, however many strings the member holds. */
function toMemberPosition({ path, isMedia }: Position, name: string, isPart: boolean): Position {
  const folded = foldName(name.slice(0, MAX_NAME_LENGTH));
  return {
    path: `${path}.${folded}`,
    isMedia: isMedia || isPart || MEDIA_MEMBER.test(folded),
    isAddress: ADDRESS_MEMBER.test(folded),
  };
}

/** True for a data URL, and for https at a public address or at a name that is not private by its form. */
function isPublicAddress(text: string): boolean {
  if (text.startsWith('data:')) return true;
  const url = /^https:\/\/[^\s\p{Cc}\\]+$/u.test(text) ? URL.parse(text) : null;
  if (url?.username !== '' || url.password !== '') return false;
  const host = normalizeHostName(url.hostname).replace(/^\[|\]$/g, '');
  const address = parseIpAddress(host);
  if (address !== undefined) return classifyAddress(address, NO_OWN_ADDRESSES) === 'public';
  return /^[^.]+(\.[^.]+)+$/.test(host) && !PRIVATE_NAME.test(host);
}
