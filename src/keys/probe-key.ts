import { randomInt } from 'node:crypto';

const DIGITS = '0123456789';
const LOWER = 'abcdefghijklmnopqrstuvwxyz';
const ALPHABETS = [DIGITS, LOWER, LOWER.toUpperCase()];
const ANY = ALPHABETS.join('');
/** Parts that name a kind of key and stay, e.g. `sk-or-v1-`: a server may look at them first. */
const LEADING_PARTS = /^(?:[A-Za-z0-9]{1,8}[-_]){1,3}/;
/** Without so many characters behind them, what looks like leading parts is the key itself. */
const MIN_REST = 12;

/**
 * A random key of the same form and length: a digit for a digit, a letter for a letter, hexadecimal for
 * hexadecimal. It is never the key itself.
 * @param key not empty.
 */
export function createProbeKey(key: string): string {
  const parts = LEADING_PARTS.exec(key)?.[0] ?? '';
  const start = key.length - parts.length >= MIN_REST ? parts : '';
  const rest = key.slice(start.length);
  const isHex = /^[0-9a-f]{16,}$/.test(rest);
  // Of punctuation alone nothing would change.
  const isFixed = !/[A-Za-z0-9]/.test(rest);
  const alphabetOf = (character: string) => {
    if (isHex) return `${DIGITS}abcdef`;
    return isFixed ? ANY : ALPHABETS.find((alphabet) => alphabet.includes(character));
  };
  for (;;) {
    const probe = start + Array.from(rest, (character) => pick(alphabetOf(character)) ?? character).join('');
    if (probe !== key) return probe;
  }
}

function pick(alphabet: string | undefined): string | undefined {
  return alphabet?.[randomInt(alphabet.length)];
}
