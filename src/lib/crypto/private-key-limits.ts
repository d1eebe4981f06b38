/**
 * Limits for users' private keys. OpenSSL's work grows with the size of a key's numbers, blocks the main thread, and
 * begins for some key types while the key is read. So keys are checked before OpenSSL reads them.
 */
import {
  bitLength,
  derContent,
  DER,
  DerError,
  derMagnitude,
  derChildren,
  readDer,
  derSmallInteger,
} from './der.ts';
import type { DerValue } from './der.ts';

/** Characters of PEM: more than twice the length of the largest accepted RSA key. */
export const MAX_PRIVATE_KEY_LENGTH = 16_384;
/** A signature with a key of this size takes about 10 ms, and 8 times as long for each doubling. */
export const MAX_RSA_BITS = 8_192;
const MAX_RSA_EXPONENT_BITS = 32;

export const PRIVATE_KEY_TOO_LONG = `A private key has at most ${MAX_PRIVATE_KEY_LENGTH} characters.`;
export const UNSUPPORTED_PRIVATE_KEY =
  'This type of private key is not supported. Use Ed25519, ECDSA on P-256, P-384 or P-521, or RSA.';
export const RSA_KEY_TOO_LARGE = `An RSA key may have at most ${MAX_RSA_BITS} bits. Use a smaller RSA key, or an Ed25519 key.`;
const RSA_KEY_INCONSISTENT = "The RSA key's numbers are inconsistent: the key is damaged.";
export const UNREADABLE_PRIVATE_KEY =
  'The private key cannot be read. Use an undamaged private key in PEM format.';

/** Contents of the object identifiers, in hexadecimal. */
const RSA = '2a864886f70d010101';
const ELLIPTIC_CURVE = '2a8648ce3d0201';
const ED25519 = '2b6570';
const P256 = '2a8648ce3d030107';
const P384 = '2b81040022';
const P521 = '2b81040023';
const CURVES: readonly string[] = [P256, P384, P521];

const BEGIN = /-----BEGIN /g;
const BLOCK =
  /^-----BEGIN ((?:[A-Z0-9]+ )?PRIVATE KEY)-----[ \t]*\r?\n([\s\S]*?)\n-----END \1-----[ \t]*\r?$/m;
/** OpenSSL writes this block before an EC key. It is ignored. */
const CURVE_BLOCK = /^-----BEGIN EC PARAMETERS-----\s[A-Za-z0-9+/=\s]*-----END EC PARAMETERS-----\s/m;
const BASE64 = /^[A-Za-z0-9+/\s]+={0,2}\s*$/;

export interface PemKey {
  /** The text after BEGIN, e.g. `RSA PRIVATE KEY`. */
  label: string;
  body: string;
  /** The key's block, without the text around it. */
  text: string;
}

/**
 * Finds the private key in PEM text; undefined when there is none or more than one. With several keys, OpenSSL might
 * read another one than was checked.
 */
export function findPemKey(pem: string): PemKey | undefined {
  const rest = pem.replace(CURVE_BLOCK, '');
  const [text, label, body] = BLOCK.exec(rest) ?? [];
  const isOnlyOne = rest.match(BEGIN)?.length === 1;
  return text === undefined || label === undefined || body === undefined || !isOnlyOne
    ? undefined
    : { label, body, text: `${text.trimEnd()}\n` };
}

/** The bytes of a PEM body; undefined when it is not plain base64. */
export function decodePemBody(body: string): Buffer | undefined {
  return BASE64.test(body) ? Buffer.from(body, 'base64') : undefined;
}

/**
 * Checks a private key without a passphrase (PKCS#1, SEC 1 or PKCS#8), without using it.
 * @returns the error text for the user; undefined when the key is accepted.
 */
export function findPrivateKeyError(pem: string): string | undefined {
  if (pem.length > MAX_PRIVATE_KEY_LENGTH) return PRIVATE_KEY_TOO_LONG;
  const key = findPemKey(pem);
  const bytes = key && decodePemBody(key.body);
  if (key === undefined || bytes === undefined) return UNREADABLE_PRIVATE_KEY;
  try {
    const value = readDer(bytes);
    if (key.label === 'RSA PRIVATE KEY') return findRsaError(value);
    if (key.label === 'EC PRIVATE KEY') return findSec1Error(value);
    return key.label === 'PRIVATE KEY' ? findPkcs8Error(value) : UNSUPPORTED_PRIVATE_KEY;
  } catch (error) {
    if (error instanceof DerError) return UNREADABLE_PRIVATE_KEY;
    throw error;
  }
}

/** PKCS#8 (RFC 5958). */
function findPkcs8Error(value: DerValue): string | undefined {
  const [, algorithm, key] = derChildren(value);
  const [kind, parameters] = derChildren(algorithm);
  const name = derContent(kind, DER.oid).toString('hex');
  if (name === ED25519) return undefined;
  if (name === ELLIPTIC_CURVE) return findCurveError(parameters);
  return name === RSA ? findRsaError(readDer(derContent(key, DER.octets))) : UNSUPPORTED_PRIVATE_KEY;
}

/** SEC 1 (RFC 5915): the curve is the third element, after the version and the key. */
function findSec1Error(value: DerValue): string | undefined {
  const [, , tagged] = derChildren(value);
  return findCurveError(derChildren(tagged, DER.context0)[0]);
}

/** Accepts named curves only: explicit parameters could describe any curve. */
function findCurveError(curve: DerValue | undefined): string | undefined {
  const isKnown = curve?.tag === DER.oid && CURVES.includes(curve.content.toString('hex'));
  return isKnown ? undefined : UNSUPPORTED_PRIVATE_KEY;
}

/** PKCS#1 (RFC 8017, A.1.2) with two primes. */
function findRsaError(value: DerValue): string | undefined {
  const [version, ...numbers] = derChildren(value);
  if (derSmallInteger(version) !== 0 || numbers.length !== 8) return UNSUPPORTED_PRIVATE_KEY;
  const bits = numbers.map((number) => bitLength(derMagnitude(number)));
  const [n = 0, e = 0, d = 0, p = 0, q = 0, dp = 0, dq = 0, qi = 0] = bits;
  if (n > MAX_RSA_BITS) return RSA_KEY_TOO_LARGE;
  // A product has as many bits as its factors together, or one less.
  const isConsistent =
    e <= MAX_RSA_EXPONENT_BITS && d <= n && p + q <= n + 1 && dp <= p && dq <= q && qi <= p;
  return isConsistent ? undefined : RSA_KEY_INCONSISTENT;
}
