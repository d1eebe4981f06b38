import type { Owner } from '../owner.ts';
import type { Sql } from '../postgres/database.ts';

/** An encrypted text in a row of the database, as `keys check` and `keys rotate` process it. */
export interface EncryptedText {
  owner: Owner;
  ciphertext: string;
  /** True when it can be decrypted and was encrypted for this row and field. */
  isValid(): boolean | Promise<boolean>;
  /**
   * Replaces the token and nothing else.
   * @param sql a transaction of `withOwner` for the text's owner.
   * @returns false when the row was changed or deleted in the meantime; nothing is written then.
   */
  replace(sql: Sql, ciphertext: string): Promise<boolean>;
}

/** All encrypted texts of one kind, of all owners. */
export interface EncryptedTexts {
  /** Plural, e.g. `secrets of servers`. */
  kind: string;
  /** Reads them in small pages, without holding a lock or transaction. Texts written meanwhile may be missed. */
  list(): AsyncIterable<EncryptedText>;
}
