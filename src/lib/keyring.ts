import { openFernet, parseFernetKey, sealFernet } from './fernet.ts';

/** The operator's encryption keys (`ENCRYPTION_KEY`). */
export interface Keyring {
  /** Encrypts text under the first key. */
  seal(plaintext: string): string;
  /** Decrypts under whichever key fits; undefined when none does or the token was altered. */
  open(token: string): string | undefined;
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
  return {
    seal: (plaintext) => sealFernet(first, Buffer.from(plaintext, 'utf8')),
    open(token) {
      for (const key of parsed) {
        const plaintext = openFernet(key, token);
        if (plaintext !== undefined) return decodeUtf8(plaintext);
      }
      return undefined;
    },
  };
}

function decodeUtf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
