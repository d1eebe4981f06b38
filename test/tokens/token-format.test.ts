import { createHash } from 'node:crypto';
import { describe, expect, it } from '@jest/globals';
import {
  containsToken,
  createTokenText,
  hashToken,
  isTokenText,
  toShownPrefix,
} from '../../src/tokens/token-format.ts';

/** CRC-32 of the 32 characters as `zlib.crc32` of Python computes it, in base62. */
const KNOWN = 'oc_0123456789ABCDEFGHIJKLMNOPQRSTUV';

describe('the form of a token', () => {
  it('is oc_, 32 characters and a checksum of 6, and each token is another one', () => {
    const tokens = Array.from({ length: 100 }, createTokenText);
    for (const token of tokens) {
      expect(token).toMatch(/^oc_[0-9A-Za-z]{38}$/);
      expect(isTokenText(token)).toBe(true);
    }
    expect(new Set(tokens).size).toBe(tokens.length);
  });

  it('has the CRC-32 of the random characters in base62, padded to 6', () => {
    expect(isTokenText(`${KNOWN}1ggZdL`)).toBe(true);
  });

  it('is refused with any other character at any place', () => {
    const token = createTokenText();
    for (let index = 3; index < token.length; index += 1) {
      const other = token[index] === 'x' ? 'y' : 'x';
      expect(isTokenText(token.slice(0, index) + other + token.slice(index + 1))).toBe(false);
    }
  });

  it.each([
    ['an empty text', ''],
    ['no prefix', createTokenText().slice(3)],
    ['another prefix', `sk_${createTokenText().slice(3)}`],
    ['a space at the end', `${createTokenText()} `],
    ['a line break at the end', `${createTokenText()}\n`],
    ['one character less', createTokenText().slice(0, -1)],
  ])('is not %s', (_name, text) => {
    expect(isTokenText(text)).toBe(false);
  });

  it('shows four random characters, and is stored as its SHA-256', () => {
    const token = createTokenText();
    expect(toShownPrefix(token)).toBe(token.slice(0, 7));
    expect(hashToken(token)).toEqual(createHash('sha256').update(token).digest());
  });

  it('is found in other text, also with a wrong checksum', () => {
    expect(containsToken(`https://ops.example/?key=oc_${'a'.repeat(38)}&x=1`)).toBe(true);
    expect(containsToken(`oc_${'a'.repeat(37)}`)).toBe(false);
  });
});
