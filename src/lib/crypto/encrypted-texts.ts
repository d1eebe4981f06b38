import type { Owner } from '../owner.ts';

/** An encrypted text in a row of the database, as the key ring commands process it. */
export interface EncryptedText {
  owner: Owner;
  /** Names the text in reports, e.g. `server <id>, password`. */
  name: string;
  ciphertext: string;
  /** True when it can be decrypted and was encrypted for this row and field. */
  isValid(): Promise<boolean>;
  /**
   * Replaces the token and nothing else.
   * @returns false when the row was changed or deleted in the meantime; nothing is written then.
   */
  replace(ciphertext: string): Promise<boolean>;
}

/** All encrypted texts of one kind, of all owners. */
export interface EncryptedTexts {
  /** Plural, e.g. `secrets of servers`. */
  kind: string;
  /** Reads them in small pages, without holding a lock or transaction. Texts written meanwhile may be missed. */
  list(): AsyncIterable<EncryptedText>;
}
