import { createPrivateKey, generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import ssh2, { type ParsedKey } from 'ssh2';
import {
  decodePemBody,
  findPrivateKeyError,
  findPemKey,
  UNSUPPORTED_PRIVATE_KEY,
  PRIVATE_KEY_TOO_LONG,
  MAX_PRIVATE_KEY_LENGTH,
  MAX_RSA_BITS,
  RSA_KEY_TOO_LARGE,
  UNREADABLE_PRIVATE_KEY,
} from '../crypto/private-key-limits.ts';
import type { Owner } from '../owner.ts';
import { PrivateKeyError } from './ssh-error.ts';
import { parseOpenSshKey, OPENSSH_MAGIC } from './openssh-key.ts';
import { hasLostLineBreaks } from './private-key-repair.ts';
import { decryptPrivateKey } from './private-key-decryption.ts';
import { findBcryptProblem, findPkcs8DerivationProblem } from './key-derivation-limits.ts';

const PUBLIC_KEY = /^(?:ssh-|ecdsa-|sk-)|^-----BEGIN (?:RSA )?PUBLIC KEY-----|^---- BEGIN SSH2 PUBLIC KEY/;
const OPENSSH = 'OPENSSH PRIVATE KEY';
const PKCS8 = 'PRIVATE KEY';
const ENCRYPTED_PKCS8 = 'ENCRYPTED PRIVATE KEY';
/** PKCS#1 and SEC 1. */
const TRADITIONAL: readonly (string | undefined)[] = ['RSA PRIVATE KEY', 'EC PRIVATE KEY'];
const ENCRYPTED_TRADITIONAL = /^Proc-Type: 4,ENCRYPTED$/m;
/** Ed25519, RSA and ECDSA. DSA and keys on security keys are not supported. */
const OPENSSH_TYPES = /^(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))$/;

const PUTTY_KEY_MESSAGE =
  'This is a PuTTY key (PPK). Convert it with "puttygen key.ppk -O private-openssh -o key", or in PuTTYgen by ' +
  '"Conversions > Export OpenSSH key", and use the result.';
const KEY_CUT_OFF = 'The private key is cut off. Paste the whole file.';
const LINE_BREAKS_LOST =
  'The line breaks of the key are lost. Paste the whole file of the private key with its lines, from BEGIN to END.';
const PASSPHRASE_MISSING =
  'The private key is encrypted: enter its passphrase, or remove the passphrase with "ssh-keygen -p".';

/**
 * Checks the format and size of a private key without decrypting it, which is quick. The rounds of OpenSSH's format
 * are checked by {@link findPrivateKeyInputProblem}.
 * @returns a message for users; undefined when no problem was found.
 */
export function findPrivateKeyProblem(text: string, passphrase: string | null): string | undefined {
  if (text.length > MAX_PRIVATE_KEY_LENGTH) return PRIVATE_KEY_TOO_LONG;
  const key = normalize(text);
  if (key.startsWith('PuTTY-User-Key-File-')) return PUTTY_KEY_MESSAGE;
  if (PUBLIC_KEY.test(key))
    return 'This is a public key. The private key is the file of the same name without ".pub".';
  const info = findPrivateKeyInfo(key);
  if (info === undefined) return hasLostLineBreaks(text) ? LINE_BREAKS_LOST : UNREADABLE_PRIVATE_KEY;
  if (info.isEncrypted && passphrase === null) return PASSPHRASE_MISSING;
  return info.problem;
}

/**
 * Why a new private key is not stored although its format is known, for users: its key derivation is too costly, or its
 * content cannot be read. What a passphrase protects is only checked for its length. Not part of the schema of a server,
 * because stored servers may have such a key: it is refused when it is used.
 */
export function findPrivateKeyInputProblem(text: string): string | undefined {
  const info = findPrivateKeyInfo(normalize(text));
  if (info === undefined) return UNREADABLE_PRIVATE_KEY;
  if (info.isEncrypted) return findBcryptProblem(info.rounds) ?? (info.isComplete ? undefined : KEY_CUT_OFF);
  try {
    parseUnencryptedKey(info.pem);
    return undefined;
  } catch (error) {
    if (error instanceof PrivateKeyError) return error.message;
    throw error;
  }
}

/**
 * Parses a private key in OpenSSH, PKCS#1, SEC 1 or PKCS#8 format and decrypts it if needed.
 * @param owner decryptions take turns between owners.
 * @throws PrivateKeyError, PrivateKeyBusyError, or the reason of `signal` when it is aborted during the decryption.
 */
export async function parsePrivateKey(
  text: string,
  passphrase: string | null,
  { owner, signal }: { owner: Owner; signal: AbortSignal },
): Promise<ParsedKey> {
  const info = findPrivateKeyInfo(normalize(text));
  const problem = findPrivateKeyProblem(text, passphrase) ?? findBcryptProblem(info?.rounds ?? 0);
  if (problem !== undefined || info === undefined)
    throw new PrivateKeyError(problem ?? UNREADABLE_PRIVATE_KEY);
  // The key file sets the cost of the key derivation, so it must not block the event loop.
  const needsDecryption = passphrase !== null && info.isEncrypted;
  const decrypted = needsDecryption
    ? await decryptPrivateKey(info.pem, passphrase, { owner, signal })
    : info.pem;
  return parseUnencryptedKey(decrypted);
}

export interface GeneratedSshKeyPair {
  /** One line for `authorized_keys`. */
  publicKey: string;
  /** In OpenSSH format, without a passphrase. */
  privateKey: string;
}

/** Generates an Ed25519 key pair. ssh2's own generator corrupts keys that begin with a zero byte. */
export function generateSshKeyPair(): GeneratedSshKeyPair {
  const privateKey = encodeEd25519(generateKeyPairSync('ed25519').privateKey);
  const blob = readWithSsh2(privateKey).getPublicSSH().toString('base64');
  return { publicKey: `ssh-ed25519 ${blob} ops-center`, privateKey };
}

function normalize(text: string): string {
  return `${text.replaceAll('\r\n', '\n').trim()}\n`;
}

/** The part of a key file that can be read without its passphrase. */
interface PrivateKeyInfo {
  /** The key's PEM block, without surrounding text. */
  pem: string;
  isEncrypted: boolean;
  /** Of bcrypt in OpenSSH's format; else 0. */
  rounds: number;
  /** False when an encrypted key in OpenSSH's format is shorter than it says. Others are not checked. */
  isComplete: boolean;
  /** Why the key is refused, for users. */
  problem: string | undefined;
}

function findPrivateKeyInfo(text: string): PrivateKeyInfo | undefined {
  const pem = findPemKey(text);
  if (pem === undefined) return undefined;
  const { label, body, text: key } = pem;
  if (TRADITIONAL.includes(label) && ENCRYPTED_TRADITIONAL.test(body))
    // Its key derivation is one round of MD5, so it has no cost limit. The content is checked after decryption.
    return { pem: key, isEncrypted: true, rounds: 0, isComplete: true, problem: undefined };
  if (TRADITIONAL.includes(label) || label === PKCS8)
    return { pem: key, isEncrypted: false, rounds: 0, isComplete: true, problem: findPrivateKeyError(key) };
  const bytes = decodePemBody(body);
  if (bytes === undefined) return undefined;
  if (label === ENCRYPTED_PKCS8)
    return {
      ...{ pem: key, isEncrypted: true, rounds: 0, isComplete: true },
      problem: findPkcs8DerivationProblem(bytes),
    };
  return label === OPENSSH ? findOpenSshKeyInfo(key, bytes) : undefined;
}

function findOpenSshKeyInfo(key: string, bytes: Buffer): PrivateKeyInfo | undefined {
  const found = parseOpenSshKey(bytes);
  if (found === undefined) return undefined;
  const { type, modulusBits, ...rest } = found;
  const info = { pem: key, ...rest };
  if (!OPENSSH_TYPES.test(type)) return { ...info, problem: UNSUPPORTED_PRIVATE_KEY };
  if (modulusBits > MAX_RSA_BITS) return { ...info, problem: RSA_KEY_TOO_LARGE };
  return { ...info, problem: undefined };
}

/** Parses an unencrypted key. Its numbers are checked before any computation uses them. */
function parseUnencryptedKey(key: string): ParsedKey {
  const isOpenSsh = findPemKey(key)?.label === OPENSSH;
  const parsed = isOpenSsh ? readWithSsh2(key) : undefined;
  // Checks the numbers that ssh2 computes with: the public part of the file may belong to another key.
  const problem = findPrivateKeyError(parsed?.getPrivatePEM() ?? key);
  if (problem !== undefined) throw new PrivateKeyError(problem);
  return parsed ?? readWithSsh2(findPemKey(key)?.label === PKCS8 ? fromPkcs8(key) : key);
}

function readWithSsh2(key: string): ParsedKey {
  let parsed: ParsedKey | Error | undefined;
  try {
    // ssh2 returns undefined for a file that declares that it contains no key.
    parsed = ssh2.utils.parseKey(key);
  } catch {
    parsed = undefined;
  }
  if (parsed === undefined || parsed instanceof Error || !parsed.isPrivateKey())
    throw new PrivateKeyError(UNREADABLE_PRIVATE_KEY);
  return parsed;
}

/** Converts PKCS#8, which ssh2 does not support, to a format that it does. */
function fromPkcs8(pem: string): string {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new PrivateKeyError(UNREADABLE_PRIVATE_KEY);
  }
  if (key.asymmetricKeyType === 'ed25519') return encodeEd25519(key);
  const type = key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1';
  return key.export({ type, format: 'pem' }).toString();
}

/** Encodes an unencrypted key in OpenSSH format (openssh/PROTOCOL.key). */
function encodeEd25519(key: KeyObject): string {
  const { x = '', d = '' } = key.export({ format: 'jwk' });
  const publicPart = Buffer.from(x, 'base64url');
  const secretPart = Buffer.concat([Buffer.from(d, 'base64url'), publicPart]);
  const publicBlob = Buffer.concat([encodeField('ssh-ed25519'), encodeField(publicPart)]);
  const check = randomBytes(4);
  const body = Buffer.concat([check, check, publicBlob, encodeField(secretPart), encodeField('')]);
  const padding = Buffer.from(Array.from({ length: (8 - (body.length % 8)) % 8 }, (_, index) => index + 1));
  const whole = Buffer.concat([
    OPENSSH_MAGIC,
    encodeField('none'),
    encodeField('none'),
    encodeField(''),
    Buffer.from([0, 0, 0, 1]),
    encodeField(publicBlob),
    encodeField(Buffer.concat([body, padding])),
  ]);
  const lines = whole.toString('base64').match(/.{1,70}/g) ?? [];
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join('\n')}\n-----END OPENSSH PRIVATE KEY-----\n`;
}

function encodeField(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
