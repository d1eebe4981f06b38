import { randomBytes } from 'node:crypto';
import { registerPrivateKey } from './hosts.ts';

/** Builds private keys that no tool would create. They are not usable. */

function derValue(tag: number, ...parts: Buffer[]): Buffer {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.of(tag, ...size), content]);
}

export const derSequence = (...parts: Buffer[]): Buffer => derValue(0x30, ...parts);
export const derOctets = (content: Buffer): Buffer => derValue(0x04, content);
export const derOid = (hex: string): Buffer => derValue(0x06, Buffer.from(hex, 'hex'));
export const derInteger = (number: number): Buffer => {
  const hex = number.toString(16);
  return derValue(0x02, unsigned(Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')));
};

/** Adds a leading zero byte only if the first bit would be read as the sign. */
function unsigned(bytes: Buffer): Buffer {
  return (bytes[0] ?? 0) < 0x80 ? bytes : Buffer.concat([Buffer.of(0), bytes]);
}

export function toPem(label: string, bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? [];
  const text = `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
  registerPrivateKey(text);
  return text;
}

/** A random odd number of the given length, as encoded by SSH and DER. */
function numberOf(bits: number): Buffer {
  const bytes = randomBytes(Math.ceil(bits / 8));
  const top = (bits - 1) % 8;
  bytes[0] = ((bytes[0] ?? 0) & ((1 << top) - 1)) | (1 << top);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) | 1;
  return unsigned(bytes);
}

type RsaMember = 'n' | 'e' | 'd' | 'p' | 'q' | 'dp' | 'dq' | 'qi';

/** PKCS#1 with random numbers. @param bits of the modulus. @param given bits of other numbers; otherwise they match. */
export function craftRsaKey(bits: number, given: Partial<Record<RsaMember, number>> = {}): Buffer {
  const half = bits / 2;
  const sizes = { n: bits, e: 17, d: bits, p: half, q: half, dp: half, dq: half, qi: half, ...given };
  return derSequence(derInteger(0), ...Object.values(sizes).map((size) => derValue(0x02, numberOf(size))));
}

function field(content: Buffer | string): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

interface OpenSshOptions {
  type?: string;
  publicBits?: number;
  privateBits?: number;
  rounds?: number;
}

/** OpenSSH's format; encrypted if `rounds` is given. */
export function craftOpenSshKey({ type, publicBits, privateBits, rounds }: OpenSshOptions): string {
  const name = field(type ?? 'ssh-rsa');
  const [e, n] = [field(numberOf(17)), field(numberOf(publicBits ?? 2048))];
  const bits = privateBits ?? 2048;
  const numbers = [bits, 17, bits, bits / 2, bits / 2, bits / 2].map((size) => field(numberOf(size)));
  const body = Buffer.concat([Buffer.alloc(8), name, ...numbers, field('')]);
  const padding = Buffer.from(Array.from({ length: (8 - (body.length % 8)) % 8 }, (_, index) => index + 1));
  const count = Buffer.alloc(4);
  count.writeUInt32BE(rounds ?? 0);
  const head =
    rounds === undefined
      ? [field('none'), field('none'), field('')]
      : [field('aes256-ctr'), field('bcrypt'), field(Buffer.concat([field(randomBytes(16)), count]))];
  const parts = [...head, Buffer.of(0, 0, 0, 1), field(Buffer.concat([name, e, n]))];
  const bytes = [Buffer.from('openssh-key-v1\0'), ...parts, field(Buffer.concat([body, padding]))];
  return toPem('OPENSSH PRIVATE KEY', Buffer.concat(bytes));
}

/** Encrypted PKCS#8 (RFC 8018, PBES2) with the given key derivation and its numbers. */
export function craftEncryptedKey(derivation: string, ...numbers: number[]): string {
  const parameters = derSequence(derOctets(randomBytes(16)), ...numbers.map(derInteger));
  const aes = derSequence(derOid('60864801650304012a'), derOctets(randomBytes(16)));
  const scheme = derSequence(
    derOid('2a864886f70d01050d'),
    derSequence(derSequence(derOid(derivation), parameters), aes),
  );
  return toPem('ENCRYPTED PRIVATE KEY', derSequence(scheme, derOctets(randomBytes(64))));
}
