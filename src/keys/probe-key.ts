import { randomInt } from 'node:crypto';
import { PROVIDERS } from '../providers/index.ts';

const DIGITS = '0123456789';
const LOWER = 'abcdefghijklmnopqrstuvwxyz';
const ALPHABETS = [DIGITS, LOWER, LOWER.toUpperCase()];
const ANY = ALPHABETS.join('');
/**
 * Public prefixes that name a kind of key. They are kept, since a server may check them first. Nothing else is kept: in
 * a key of unknown format, any part may be secret.
 */
const PREFIXES = PROVIDERS.map(({ key }) => key.prefix)
  .filter((prefix) => prefix !== '')
  .sort((a, b) => b.length - a.length);
const VERSION = /^v\d[-_]/;
/** With fewer characters after it, an apparent prefix is treated as part of the secret. */
const MIN_SECRET_LENGTH = 12;

/**
 * A random key of the same form and length: a digit for a digit, a letter for a letter, hexadecimal for
 * hexadecimal. It is never the key itself.
 * @param key not empty.
 */
export function createProbeKey(key: string): string {
  const prefix = PREFIXES.find((known) => key.startsWith(known)) ?? '';
  const version = prefix === '' ? '' : (VERSION.exec(key.slice(prefix.length))?.[0] ?? '');
  const publicPart = prefix + version;
  const kept = key.length - publicPart.length >= MIN_SECRET_LENGTH ? publicPart : '';
  const secretPart = key.slice(kept.length);
  const isHex = /^[0-9a-f]{16,}$/.test(secretPart);
  // Punctuation alone would stay the same.
  const isFixed = !/[A-Za-z0-9]/.test(secretPart);
  const alphabetOf = (character: string) => {
    if (isHex) return `${DIGITS}abcdef`;
    return isFixed ? ANY : ALPHABETS.find((alphabet) => alphabet.includes(character));
  };
  for (;;) {
    const probe =
      kept + Array.from(secretPart, (character) => pick(alphabetOf(character)) ?? character).join('');
    if (probe !== key) return probe;
  }
}

function pick(alphabet: string | undefined): string | undefined {
  return alphabet?.[randomInt(alphabet.length)];
}
