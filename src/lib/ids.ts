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

/** A number in base62, padded with zeros. @param value a whole number from 0 to 2^53 - 1. */
export function toBase62(value: number, length: number): string {
  let digits = '';
  for (let rest = value; rest > 0; rest = Math.floor(rest / BASE62.length))
    digits = BASE62.charAt(rest % BASE62.length) + digits;
  return digits.padStart(length, '0');
}
