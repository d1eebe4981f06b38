import { bitLength } from '../crypto/der.ts';

/** The first bytes of a private key in OpenSSH format. */
export const OPENSSH_MAGIC = Buffer.from('openssh-key-v1\0');

/** The unencrypted part of a private key in OpenSSH format (openssh/PROTOCOL.key). */
export interface OpenSshKeyInfo {
  isEncrypted: boolean;
  /** Rounds of bcrypt; 0 without a passphrase. */
  rounds: number;
  /** E.g. `ssh-rsa`. */
  type: string;
  /** 0 for a key that is not RSA. */
  modulusBits: number;
  /** False when the encrypted or unencrypted part is shorter than the file says. */
  isComplete: boolean;
}

/** @returns undefined for other formats, truncated keys and files with several keys. */
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
  const isEncrypted = reader.readString().toString('latin1') !== 'none';
  reader.readString();
  const options = createReader(reader.readString());
  if (reader.readUint32() !== 1) return undefined;
  const publicKey = createReader(reader.readString());
  const type = publicKey.readString().toString('latin1');
  if (isEncrypted) options.readString();
  const rounds = isEncrypted ? options.readUint32() : 0;
  const info = { isEncrypted, rounds, type, modulusBits: 0, isComplete: hasString(reader) };
  if (type !== 'ssh-rsa') return info;
  publicKey.readString();
  return { ...info, modulusBits: bitLength(publicKey.readString()) };
}

function hasString(reader: ReturnType<typeof createReader>): boolean {
  try {
    return reader.readString().length > 0;
  } catch (error) {
    if (error instanceof TruncatedKeyError) return false;
    throw error;
  }
}

class TruncatedKeyError extends Error {}

/** Reads data types of the SSH protocol (RFC 4251, 5). Both functions throw TruncatedKeyError past the end. */
function createReader(bytes: Buffer, start = 0) {
  let offset = start;
  const take = (length: number) => {
    if (offset + length > bytes.length) throw new TruncatedKeyError();
    offset += length;
    return bytes.subarray(offset - length, offset);
  };
  const readUint32 = () => take(4).readUInt32BE();
  const readString = () => take(readUint32());
  return { readUint32, readString };
}
