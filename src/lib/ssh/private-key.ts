import { createPrivateKey, generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import ssh2, { type ParsedKey } from 'ssh2';
import {
  decodePemBody,
  findKeyLimitFault,
  findPemKey,
  KEY_OF_OTHER_KIND,
  KEY_TOO_LONG,
  PRIVATE_KEY_MAX_LENGTH,
  RSA_MAX_BITS,
  RSA_TOO_LARGE,
  UNREADABLE_KEY,
} from '../private-key-limits.ts';
import { KeyError } from './key-error.ts';
import { findOpenSshKey, OPENSSH_MAGIC } from './openssh-key.ts';
import { unlockKey } from './unlock.ts';
import { findBcryptFault, findPkcs8CostFault } from './unlock-cost.ts';

const PUBLIC = /^(?:ssh-|ecdsa-|sk-)|^-----BEGIN (?:RSA )?PUBLIC KEY-----|^---- BEGIN SSH2 PUBLIC KEY/;
const OPENSSH = 'OPENSSH PRIVATE KEY';
const PKCS8 = 'PRIVATE KEY';
const ENCRYPTED_PKCS8 = 'ENCRYPTED PRIVATE KEY';
/** PKCS#1 and SEC 1. */
const TRADITIONAL: readonly (string | undefined)[] = ['RSA PRIVATE KEY', 'EC PRIVATE KEY'];
const ENCRYPTED_TRADITIONAL = /^Proc-Type: 4,ENCRYPTED$/m;
/** Ed25519, RSA and ECDSA: not DSA, and none that a security key holds. */
const OPENSSH_TYPES = /^(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521))$/;

const PPK =
  'This is a PuTTY key (PPK). Convert it with "puttygen key.ppk -O private-openssh -o key", or in PuTTYgen by ' +
  '"Conversions > Export OpenSSH key", and use the result.';
const ENCRYPTED = 'The private key is encrypted: enter its passphrase, or take it off with "ssh-keygen -p".';

/**
 * Looks at a private key without opening it, which is quick: its form, its size, and what its passphrase costs.
 * @returns what is wrong with it, for people; undefined when nothing is to be seen.
 */
export function findKeyFault(text: string, passphrase: string | null): string | undefined {
  if (text.length > PRIVATE_KEY_MAX_LENGTH) return KEY_TOO_LONG;
  const key = normal(text);
  if (key.startsWith('PuTTY-User-Key-File-')) return PPK;
  if (PUBLIC.test(key))
    return 'This is a public key. The private key is the file of the same name without ".pub".';
  const form = findForm(key);
  if (form === undefined) return UNREADABLE_KEY;
  if (form.isEncrypted && passphrase === null) return ENCRYPTED;
  return form.fault;
}

/**
 * Opens a private key: of OpenSSH, PKCS#1, SEC 1 or PKCS#8.
 * @throws KeyError, or the reason of `signal` when it ends while a passphrase is tried.
 */
export async function openPrivateKey(
  text: string,
  passphrase: string | null,
  signal: AbortSignal,
): Promise<ParsedKey> {
  const fault = findKeyFault(text, passphrase);
  if (fault !== undefined) throw new KeyError(fault);
  const form = findForm(normal(text));
  if (form === undefined) throw new KeyError(UNREADABLE_KEY);
  // The passphrase's derivation takes as long as the key says: it must keep nobody else waiting.
  const isLocked = passphrase !== null && form.isEncrypted;
  const opened = isLocked ? await unlockKey(form.key, passphrase, signal) : form.key;
  return parse(opened);
}

export interface KeyPair {
  /** One line for `authorized_keys`. */
  publicKey: string;
  /** In OpenSSH's form, without a passphrase. */
  privateKey: string;
}

/** Makes an Ed25519 key pair. The library's own generator damages keys that begin with a zero byte. */
export function generateSshKeyPair(): KeyPair {
  const privateKey = encodeEd25519(generateKeyPairSync('ed25519').privateKey);
  const blob = read(privateKey).getPublicSSH().toString('base64');
  return { publicKey: `ssh-ed25519 ${blob} ops-center`, privateKey };
}

function normal(text: string): string {
  return `${text.replaceAll('\r\n', '\n').trim()}\n`;
}

/** A key as far as it can be read without its passphrase. */
interface Form {
  /** The key alone, as PEM. */
  key: string;
  isEncrypted: boolean;
  /** Why it is not opened, for people. */
  fault: string | undefined;
}

function findForm(text: string): Form | undefined {
  const pem = findPemKey(text);
  if (pem === undefined) return undefined;
  const { label, body, text: key } = pem;
  if (TRADITIONAL.includes(label) && ENCRYPTED_TRADITIONAL.test(body))
    // One round of MD5: what is in it is looked at once it is open.
    return { key, isEncrypted: true, fault: undefined };
  if (TRADITIONAL.includes(label) || label === PKCS8)
    return { key, isEncrypted: false, fault: findKeyLimitFault(key) };
  const bytes = decodePemBody(body);
  if (bytes === undefined) return undefined;
  if (label === ENCRYPTED_PKCS8) return { key, isEncrypted: true, fault: findPkcs8CostFault(bytes) };
  return label === OPENSSH ? findOpenSshForm(key, bytes) : undefined;
}

function findOpenSshForm(key: string, bytes: Buffer): Form | undefined {
  const found = findOpenSshKey(bytes);
  if (found === undefined) return undefined;
  const { isEncrypted, rounds, type, modulusBits } = found;
  if (!OPENSSH_TYPES.test(type)) return { key, isEncrypted, fault: KEY_OF_OTHER_KIND };
  if (modulusBits > RSA_MAX_BITS) return { key, isEncrypted, fault: RSA_TOO_LARGE };
  return { key, isEncrypted, fault: findBcryptFault(rounds) };
}

/** Reads a key without a passphrase, whose numbers are looked at before anything is calculated with them. */
function parse(key: string): ParsedKey {
  const isOpenSsh = findPemKey(key)?.label === OPENSSH;
  const parsed = isOpenSsh ? read(key) : undefined;
  // What ssh2 calculates with: the public half, which anybody reads, may tell of another key.
  const fault = findKeyLimitFault(parsed?.getPrivatePEM() ?? key);
  if (fault !== undefined) throw new KeyError(fault);
  return parsed ?? read(findPemKey(key)?.label === PKCS8 ? withoutEnvelope(key) : key);
}

function read(key: string): ParsedKey {
  let parsed: ParsedKey | Error | undefined;
  try {
    // Undefined for a file that says that it holds no key.
    parsed = ssh2.utils.parseKey(key);
  } catch {
    parsed = undefined;
  }
  if (parsed === undefined || parsed instanceof Error || !parsed.isPrivateKey())
    throw new KeyError(UNREADABLE_KEY);
  return parsed;
}

/** What ssh2 reads, from PKCS#8, which it does not. */
function withoutEnvelope(pem: string): string {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new KeyError(UNREADABLE_KEY);
  }
  if (key.asymmetricKeyType === 'ed25519') return encodeEd25519(key);
  const type = key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1';
  return key.export({ type, format: 'pem' }).toString();
}

/** An unencrypted key in OpenSSH's form (openssh/PROTOCOL.key). */
function encodeEd25519(key: KeyObject): string {
  const { x = '', d = '' } = key.export({ format: 'jwk' });
  const publicPart = Buffer.from(x, 'base64url');
  const secretPart = Buffer.concat([Buffer.from(d, 'base64url'), publicPart]);
  const publicBlob = Buffer.concat([field('ssh-ed25519'), field(publicPart)]);
  const check = randomBytes(4);
  const body = Buffer.concat([check, check, publicBlob, field(secretPart), field('')]);
  const padding = Buffer.from(Array.from({ length: (8 - (body.length % 8)) % 8 }, (_, index) => index + 1));
  const whole = Buffer.concat([
    OPENSSH_MAGIC,
    field('none'),
    field('none'),
    field(''),
    Buffer.from([0, 0, 0, 1]),
    field(publicBlob),
    field(Buffer.concat([body, padding])),
  ]);
  const lines = whole.toString('base64').match(/.{1,70}/g) ?? [];
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join('\n')}\n-----END OPENSSH PRIVATE KEY-----\n`;
}

function field(value: string | Buffer): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
