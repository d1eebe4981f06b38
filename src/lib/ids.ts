import { randomBytes } from 'node:crypto';

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
/** The largest multiple of 62 in a byte. Bytes from here on are skipped: they would favour some characters. */
const USABLE_BYTES = 248;

/** A random base62 id with uniformly distributed characters (12 characters: 71 bits). */
export function randomId(length = 12): string {
  let id = '';
  while (id.length < length) {
    for (const byte of randomBytes(length)) {
      if (byte < USABLE_BYTES && id.length < length) id += BASE62.charAt(byte % BASE62.length);
    }
  }
  return id;
}
