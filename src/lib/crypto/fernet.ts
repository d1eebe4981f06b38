import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  randomBytes,
  timingSafeEqual,
  type KeyObject,
} from 'node:crypto';

/**
 * Fernet, as specified at github.com/fernet/spec (Spec.md):
 * base64url( 0x80 | 64-bit time in seconds | 128-bit IV | AES-128-CBC, PKCS #7 | HMAC-SHA256 of all before ).
 * The cipher is AES-128: one half of the key's 32 bytes signs, the other half encrypts.
 */
export interface FernetKey {
  readonly signing: KeyObject;
  readonly encryption: KeyObject;
}

const VERSION = 0x80;
const TIME_AT = 1;
const IV_AT = 9;
const CIPHERTEXT_AT = 25;
const BLOCK_BYTES = 16;
const MAC_BYTES = 32;
/** The tolerance of Python's `cryptography` and of the specification's test vectors. */
const MAX_CLOCK_SKEW_S = 60;

/** Reads a key: 32 bytes as URL-safe base64 with padding. @throws Error, which never contains the text. */
export function parseFernetKey(text: string): FernetKey {
  const bytes = decodeBase64Url(text);
  if (bytes?.length !== 32) throw new Error('A Fernet key is 32 bytes as URL-safe base64 with its padding.');
  // Imported once, because each use of plain bytes imports them again.
  return {
    signing: createSecretKey(bytes.subarray(0, 16)),
    encryption: createSecretKey(bytes.subarray(16)),
  };
}

/**
 * @param options `timeMs` for a token that replaces an older one; `iv` only for the specification's vectors: an IV
 *   must never be used twice.
 */
export function encryptFernet(
  key: FernetKey,
  plaintext: Buffer,
  options: { timeMs?: number; iv?: Buffer } = {},
): string {
  const { timeMs = Date.now(), iv = randomBytes(BLOCK_BYTES) } = options;
  const head = Buffer.alloc(IV_AT);
  head.writeUInt8(VERSION, 0);
  head.writeBigUInt64BE(BigInt(Math.floor(timeMs / 1000)), TIME_AT);
  const cipher = createCipheriv('aes-128-cbc', key.encryption, iv);
  const signed = Buffer.concat([head, iv, cipher.update(plaintext), cipher.final()]);
  return encodeBase64Url(Buffer.concat([signed, computeMac(key, signed)]));
}

/**
 * Decrypts a token. Every defect (spelling, length, signature, version, age, padding) gives the same `undefined`. The
 * signature is verified before the content is read.
 * @param limit refuses tokens older than `ttlS` seconds or from a clock far ahead. Without it the age is not checked.
 */
export function decryptFernet(
  key: FernetKey,
  token: string,
  limit?: { ttlS: number; nowMs: number },
): Buffer | undefined {
  const bytes = decodeBase64Url(token);
  if (bytes === undefined || bytes.length < CIPHERTEXT_AT + MAC_BYTES) return undefined;
  const signed = bytes.subarray(0, -MAC_BYTES);
  if (!timingSafeEqual(bytes.subarray(-MAC_BYTES), computeMac(key, signed))) return undefined;
  if (signed[0] !== VERSION) return undefined;
  if (limit !== undefined && !isWithinTtl(signed, limit)) return undefined;
  return decryptAesCbc(key, signed.subarray(IV_AT, CIPHERTEXT_AT), signed.subarray(CIPHERTEXT_AT));
}

/** The creation time in a token, not verified: for display only. */
export function findFernetTime(token: string): Date | undefined {
  const bytes = decodeBase64Url(token);
  if (bytes === undefined || bytes.length < IV_AT || bytes[0] !== VERSION) return undefined;
  const time = new Date(Number(bytes.readBigUInt64BE(TIME_AT)) * 1000);
  return Number.isNaN(time.getTime()) ? undefined : time;
}

function computeMac(key: FernetKey, signed: Buffer): Buffer {
  return createHmac('sha256', key.signing).update(signed).digest();
}

function isWithinTtl(signed: Buffer, limit: { ttlS: number; nowMs: number }): boolean {
  const createdS = Number(signed.readBigUInt64BE(TIME_AT));
  const nowS = limit.nowMs / 1000;
  return createdS + limit.ttlS >= nowS && createdS <= nowS + MAX_CLOCK_SKEW_S;
}

function decryptAesCbc(key: FernetKey, iv: Buffer, ciphertext: Buffer): Buffer | undefined {
  const decipher = createDecipheriv('aes-128-cbc', key.encryption, iv);
  try {
    return Buffer.concat([decipher.update(ciphertext), decipher.final()]);
  } catch {
    // Wrong length or padding under a valid signature: written by a faulty program.
    return undefined;
  }
}

function encodeBase64Url(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}

/** Strict: one value has one spelling. Node's decoder would skip invalid characters. */
function decodeBase64Url(text: string): Buffer | undefined {
  if (!/^[A-Za-z0-9_-]*={0,2}$/.test(text)) return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return encodeBase64Url(bytes) === text ? bytes : undefined;
}
