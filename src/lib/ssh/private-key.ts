import { createPrivateKey, generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import { Worker } from 'node:worker_threads';
import ssh2, { type ParsedKey } from 'ssh2';

const OPENSSH = /^-----BEGIN OPENSSH PRIVATE KEY-----$/m;
const PKCS8 = /^-----BEGIN (?:ENCRYPTED )?PRIVATE KEY-----$/m;
const PEM = /^-----BEGIN (?:RSA |EC )PRIVATE KEY-----$/m;
const ENCRYPTED_PEM = /^-----BEGIN ENCRYPTED PRIVATE KEY-----$|^Proc-Type: 4,ENCRYPTED$/m;
const PUBLIC = /^(?:ssh-|ecdsa-|sk-)|^-----BEGIN (?:RSA )?PUBLIC KEY-----|^---- BEGIN SSH2 PUBLIC KEY/;
const MAGIC = Buffer.from('openssh-key-v1\0');
/** Past this a passphrase is not tried any more: 24 rounds, OpenSSH's default, take a quarter of a second. */
const UNLOCK_MS = 10_000;

const PPK =
  'This is a PuTTY key (PPK). Convert it with "puttygen key.ppk -O private-openssh -o key", or in PuTTYgen by ' +
  '"Conversions > Export OpenSSH key", and use the result.';
const WRONG_PASSPHRASE = 'The passphrase does not open the private key, or the key is damaged.';
const UNREADABLE = 'This is not a private key that can be read: it is damaged, or of another kind.';

/** A private key that cannot be used; the message is for people and holds nothing of the key. */
export class KeyError extends Error {
  override readonly name = 'KeyError';
}

/**
 * Looks at a private key without opening it, which is quick.
 * @returns what is wrong with it, for people; undefined when nothing is to be seen.
 */
export function findKeyFault(text: string, passphrase: string | null): string | undefined {
  const key = normal(text);
  if (key.startsWith('PuTTY-User-Key-File-')) return PPK;
  if (PUBLIC.test(key))
    return 'This is a public key. The private key is the file of the same name without ".pub".';
  if (!OPENSSH.test(key) && !PKCS8.test(key) && !PEM.test(key)) return UNREADABLE;
  if (passphrase === null && isEncrypted(key))
    return 'The private key is encrypted: enter its passphrase, or take it off with "ssh-keygen -p".';
  return undefined;
}

/**
 * Opens a private key: of OpenSSH, PKCS#1, SEC 1 or PKCS#8.
 * @throws KeyError
 */
export async function openPrivateKey(text: string, passphrase: string | null): Promise<ParsedKey> {
  const fault = findKeyFault(text, passphrase);
  if (fault !== undefined) throw new KeyError(fault);
  const key = normal(text);
  // The passphrase's derivation takes as long as the key says: it must keep nobody else waiting.
  const opened = passphrase !== null && isEncrypted(key) ? await unlock(key, passphrase) : key;
  return parse(PKCS8.test(opened) ? withoutEnvelope(opened) : opened);
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
  const blob = parse(privateKey).getPublicSSH().toString('base64');
  return { publicKey: `ssh-ed25519 ${blob} ops-center`, privateKey };
}

function normal(text: string): string {
  return `${text.replaceAll('\r\n', '\n').trim()}\n`;
}

function isEncrypted(key: string): boolean {
  if (ENCRYPTED_PEM.test(key)) return true;
  if (!OPENSSH.test(key)) return false;
  // What follows the magic is the cipher's name (openssh/PROTOCOL.key).
  const bytes = Buffer.from(key.replace(/^-----.*$/gm, ''), 'base64');
  const cipher = bytes.subarray(MAGIC.length + 4, MAGIC.length + 8).toString('latin1');
  return bytes.subarray(0, MAGIC.length).equals(MAGIC) && cipher !== 'none';
}

function parse(key: string): ParsedKey {
  // Undefined for a file that says that it holds no key.
  const parsed = ssh2.utils.parseKey(key) as ParsedKey | Error | undefined;
  if (parsed === undefined || parsed instanceof Error || !parsed.isPrivateKey())
    throw new KeyError(UNREADABLE);
  return parsed;
}

/** What ssh2 reads, from PKCS#8, which it does not. */
function withoutEnvelope(pem: string): string {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    throw new KeyError(UNREADABLE);
  }
  if (key.asymmetricKeyType === 'ed25519') return encodeEd25519(key);
  const type = key.asymmetricKeyType === 'rsa' ? 'pkcs1' : 'sec1';
  return key.export({ type, format: 'pem' }).toString();
}

/** Takes off a passphrase in a thread of its own. */
async function unlock(key: string, passphrase: string): Promise<string> {
  const worker = new Worker(
    new URL(import.meta.url.endsWith('.ts') ? './unlock-key.ts' : './unlock-key.js', import.meta.url),
    {
      workerData: { key, passphrase },
      env: {},
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 64 },
    },
  );
  const tooLong = setTimeout(() => void worker.terminate(), UNLOCK_MS);
  try {
    return await new Promise<string>((resolve, reject) => {
      worker.once('message', (pem: string | null) =>
        pem === null ? reject(new KeyError(WRONG_PASSPHRASE)) : resolve(pem),
      );
      worker.once('error', () => reject(new KeyError(UNREADABLE)));
      worker.once('exit', () => reject(new KeyError('The passphrase takes too long to be tried.')));
    });
  } finally {
    clearTimeout(tooLong);
    await worker.terminate();
  }
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
    MAGIC,
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
