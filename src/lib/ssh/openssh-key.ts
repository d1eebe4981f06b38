import { bitLength } from '../crypto/der.ts';

/** Begins a private key in OpenSSH's form. */
export const OPENSSH_MAGIC = Buffer.from('openssh-key-v1\0');

/** What a private key in OpenSSH's form tells without its passphrase (openssh/PROTOCOL.key). */
export interface OpenSshKeyInfo {
  isEncrypted: boolean;
  /** Of bcrypt; 0 without a passphrase. */
  rounds: number;
  /** E.g. `ssh-rsa`. */
  type: string;
  /** Of an RSA key; 0 for others. */
  modulusBits: number;
}

/** Undefined for bytes that are no such key, or tell of several. */
export function parseOpenSshKey(bytes: Buffer): OpenSshKeyInfo | undefined {
  if (!bytes.subarray(0, OPENSSH_MAGIC.length).equals(OPENSSH_MAGIC)) return undefined;
  try {
    return readOpenSshKey(bytes);
  } catch (error) {
    if (error instanceof TruncatedKeyError) return undefined;
    throw error;
  }
}

function readOpenSshKey(bytes: Buffer): OpenSshKeyInfo | undefined {
  const reader = createReader(bytes, OPENSSH_MAGIC.length);
  const isEncrypted = reader.field().toString('latin1') !== 'none';
  reader.field();
  const options = createReader(reader.field());
  if (reader.number() !== 1) return undefined;
  const publicKey = createReader(reader.field());
  const type = publicKey.field().toString('latin1');
  if (isEncrypted) options.field();
  const rounds = isEncrypted ? options.number() : 0;
  if (type !== 'ssh-rsa') return { isEncrypted, rounds, type, modulusBits: 0 };
  publicKey.field();
  return { isEncrypted, rounds, type, modulusBits: bitLength(publicKey.field()) };
}

/** The bytes ended before the key did. */
class TruncatedKeyError extends Error {}

/** Reads the SSH protocol's data (RFC 4251, 5). Both throw an EndError past the end. */
function createReader(bytes: Buffer, start = 0) {
  let offset = start;
  const take = (length: number) => {
    if (offset + length > bytes.length) throw new TruncatedKeyError();
    offset += length;
    return bytes.subarray(offset - length, offset);
  };
  const number = () => take(4).readUInt32BE();
  const field = () => take(number());
  return { number, field };
}
