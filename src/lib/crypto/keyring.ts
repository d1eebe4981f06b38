import { createHmac } from 'node:crypto';
import { findFernetTime, decryptFernet, parseFernetKey, encryptFernet, type FernetKey } from './fernet.ts';

/** The operator's encryption keys (`ENCRYPTION_KEY`). */
export interface Keyring {
  /** How many keys there are. */
  readonly size: number;
  /** One text per key, in their order, that tells keys apart and says nothing of them: hex. */
  readonly fingerprints: readonly string[];
  /** Encrypts text under the first key. */
  encrypt(plaintext: string): string;
  /** Decrypts under whichever key fits; undefined when none does or the token was altered. */
  decrypt(token: string): string | undefined;
  /** Which key opens a token, counted from 0; undefined when none does. */
  findKeyIndex(token: string): number | undefined;
  /**
   * The same plaintext with the same time under the first key: what changes is the key alone.
   * @returns undefined when no key opens the token.
   */
  reencrypt(token: string): string | undefined;
}

/**
 * Builds a keyring: the first key seals, all open, so that a new key is put in front and the old one
 * stays until everything has been sealed again.
 * @throws Error when there is no key or one is malformed; it never repeats a key.
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
    encrypt: (plaintext) => encryptFernet(first, Buffer.from(plaintext, 'utf8')),
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

/** HMAC-SHA256 of a constant: the keys are random, so that nobody can try them out against it. */
function fingerprint({ signing, encryption }: FernetKey): string {
  return createHmac('sha256', Buffer.concat([signing, encryption]))
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
