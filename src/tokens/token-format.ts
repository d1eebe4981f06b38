import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { randomId, toBase62 } from '../lib/ids.ts';

const PREFIX = 'oc_';
const RANDOM_LENGTH = 32;
const CHECKSUM_LENGTH = 6;
const TOKEN = /^oc_([0-9A-Za-z]{32})([0-9A-Za-z]{6})$/;
/** Anywhere in a text, with or without a valid checksum. */
const TOKEN_IN_TEXT = /oc_[0-9A-Za-z]{38}/;
/** Characters of a token that are stored and shown: `oc_` and 4 more of its 32. */
const SHOWN_LENGTH = 7;

/** Creates a token: `oc_`, 32 random base62 characters (190 bits), and their CRC-32 in 6 base62 characters. */
export function createTokenText(): string {
  const random = randomId(RANDOM_LENGTH);
  return PREFIX + random + checksumOf(random);
}

/** True for the form of a token with a valid checksum: other text is refused without a query. */
export function isTokenText(text: string): boolean {
  const [, random, checksum] = TOKEN.exec(text) ?? [];
  return random !== undefined && checksumOf(random) === checksum;
}

/** True when a text has the prefix of personal tokens: it is no other credential. */
export function hasTokenPrefix(text: string): boolean {
  return text.startsWith(PREFIX);
}

/** True when a token is part of the text. */
export function containsToken(text: string): boolean {
  return TOKEN_IN_TEXT.test(text);
}

/** The start of a token, with which its owner recognizes it in a list. */
export function toShownPrefix(token: string): string {
  return token.slice(0, SHOWN_LENGTH);
}

/** The SHA-256, which is all that is stored of a token. The random part makes a slower hash unnecessary. */
export function hashToken(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function checksumOf(random: string): string {
  return toBase62(crc32(random), CHECKSUM_LENGTH);
}
