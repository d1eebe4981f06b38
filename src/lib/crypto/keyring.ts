import { createHmac } from 'node:crypto';
import { findFernetTime, decryptFernet, parseFernetKey, encryptFernet, type FernetKey } from './fernet.ts';

/** The operator's encryption keys (`ENCRYPTION_KEY`). */
export interface Keyring {
  /** Number of keys. */
  readonly size: number;
  /** One hexadecimal text per key, in the same order. It identifies a key without revealing it. */
  readonly fingerprints: readonly string[];
  /** Encrypts text under the first key. @param time the creation time of the token, kept to the second; now by default. */
  encrypt(plaintext: string, time?: Date): string;
  /** Decrypts with the matching key; undefined when no key matches or the token was altered. */
  decrypt(token: string): string | undefined;
  /** Index (from 0) of the key that decrypts a token; undefined when none does. */
  findKeyIndex(token: string): number | undefined;
  /**
   * Encrypts the same plaintext with the same time under the first key.
   * @returns undefined when no key decrypts the token.
   */
  reencrypt(token: string): string | undefined;
}

/**
 * The first key encrypts, all keys decrypt. To rotate, put a new key first and keep the old one until all texts have
 * been re-encrypted.
 * @throws Error when there is no key or one is malformed; it never contains a key.
 */
export function createKeyring(keys: readonly string[]): Keyring {
  const parsed = keys.map(parseFernetKey);
  const [first] = parsed;
  if (first === undefined) throw new Error('A keyring needs at least one Fernet key.');

  function decryptWithIndex(token: string): { index: number; plaintext: Buffer } | undefined {
    for (const [index, key] of parsed.entries()) {
      const plaintext = decryptFernet(key, token);
      if (plaintext !== undefined) return { index, plaintext };
    }
    return undefined;
  }

  return {
    size: parsed.length,
    fingerprints: parsed.map(fingerprint),
    encrypt: (plaintext, time) =>
      encryptFernet(
        first,
        Buffer.from(plaintext, 'utf8'),
        time === undefined ? {} : { timeMs: time.getTime() },
      ),
    decrypt(token) {
      const found = decryptWithIndex(token);
      return found === undefined ? undefined : decodeUtf8(found.plaintext);
    },
    findKeyIndex: (token) => decryptWithIndex(token)?.index,
    reencrypt(token) {
      const found = decryptWithIndex(token);
      const time = findFernetTime(token);
      if (found === undefined) return undefined;
      return encryptFernet(first, found.plaintext, time === undefined ? {} : { timeMs: time.getTime() });
    },
  };
}

/** HMAC-SHA256 of a constant. The keys are random, so a fingerprint does not allow a key to be guessed. */
function fingerprint({ signing, encryption }: FernetKey): string {
  return createHmac('sha256', Buffer.concat([signing.export(), encryption.export()]))
    .update('ops-center encryption key fingerprint')
    .digest('hex');
}

function decodeUtf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
